"""Image pools follow their definition in the contract, decision by decision."""

import io
import pickle
import random

import pytest
import torch
from torch import Tensor

from cyclegan_fast.training.update.image_pool import ImagePool, StackedImagePool


class Script:
    """Random numbers written down beforehand; asking for more, or in another order, fails."""

    def __init__(self, *draws: float | int) -> None:
        self.draws = list(draws)

    def random(self) -> float:
        draw = self.draws.pop(0)
        assert isinstance(draw, float), f"random() was asked for where slot {draw} was due"
        return draw

    def randrange(self, stop: int) -> int:
        draw = self.draws.pop(0)
        assert isinstance(draw, int), f"randrange({stop}) was asked for where {draw} was due"
        assert draw < stop
        return draw


BOTH = pytest.mark.parametrize("pool_type", [ImagePool, StackedImagePool])


def batch(*numbers: int) -> Tensor:
    """Images [N, 3, 2, 2] that carry their number in every pixel."""
    return torch.tensor(numbers, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, 2, 2).contiguous()


def numbers(images: Tensor) -> list[int]:
    assert torch.equal(images, batch(*images[:, 0, 0, 0].int().tolist()))  # no image is mixed from two
    return [int(number) for number in images[:, 0, 0, 0]]


@BOTH
def test_a_pool_that_fills_returns_what_it_stores_and_draws_nothing(pool_type: type[ImagePool]) -> None:
    pool = pool_type(3, Script())
    assert numbers(pool.query(batch(1))) == [1]
    assert numbers(pool.query(batch(2, 3))) == [2, 3]
    assert numbers(torch.stack(pool.images)) == [1, 2, 3]


@BOTH
def test_below_one_half_the_new_image_is_swapped_for_a_drawn_one_and_from_one_half_on_it_is_not_stored(
    pool_type: type[ImagePool],
) -> None:
    script = Script(0.499, 1, 0.5, 0.999, 0.0, 1)
    pool = pool_type(2, script)
    pool.query(batch(1, 2))
    assert numbers(pool.query(batch(3))) == [2]
    assert numbers(pool.query(batch(4))) == [4]
    assert numbers(pool.query(batch(5))) == [5]
    assert numbers(pool.query(batch(6))) == [3]
    assert numbers(torch.stack(pool.images)) == [1, 6]
    assert not script.draws


@BOTH
def test_in_a_batch_of_8_with_a_pool_of_2_later_images_draw_what_earlier_ones_left(pool_type: type[ImagePool]) -> None:
    script = Script(0.4, 0, 0.2, 0, 0.5, 0.49, 1, 0.9, 0.0, 1)
    pool = pool_type(2, script)
    #           stored: 10 11 |  swap  |  swap  | keep | swap  | keep | swap
    assert numbers(pool.query(batch(10, 11, 12, 13, 14, 15, 16, 17))) == [10, 11, 10, 12, 14, 11, 16, 15]
    assert numbers(torch.stack(pool.images)) == [13, 17]
    assert not script.draws


@BOTH
def test_a_pool_of_size_0_returns_its_input_and_draws_nothing(pool_type: type[ImagePool]) -> None:
    pool = pool_type(0, Script())
    assert numbers(pool.query(batch(4, 2, 9))) == [4, 2, 9]
    assert pool.images == []


def naive_pool(size: int, sizes_of_batches: list[int], source: random.Random) -> list[list[int]]:
    """Applies the contract's sentence to plain numbers."""
    stored: list[int] = []
    handed_out = []
    number = 0
    for count in sizes_of_batches:
        result = []
        for _ in range(count):
            number += 1
            if size == 0:
                result.append(number)
            elif len(stored) < size:
                stored.append(number)
                result.append(number)
            elif source.random() < 0.5:
                slot = source.randrange(size)
                result.append(stored[slot])
                stored[slot] = number
            else:
                result.append(number)
        handed_out.append(result)
    return handed_out


@BOTH
@pytest.mark.parametrize("size", [0, 1, 2, 7, 50])
def test_hundreds_of_draws_agree_with_a_naive_implementation(pool_type: type[ImagePool], size: int) -> None:
    counts = [random.Random(size + i).choice([1, 1, 2, 3, 8]) for i in range(200)]
    pool = pool_type(size, random.Random(size))
    expected = naive_pool(size, counts, random.Random(size))
    first = 1
    for count, wanted in zip(counts, expected, strict=True):
        assert numbers(pool.query(batch(*range(first, first + count)))) == wanted
        first += count


def test_half_of_the_images_of_a_full_pool_are_old_and_every_slot_is_drawn_alike() -> None:
    pool = ImagePool(5, random.Random(1))
    pool.query(batch(*range(5)))
    drawn = [0] * 5
    for number in range(5, 4005):
        before = list(pool.images)
        pool.query(batch(number))
        for slot, (old, new) in enumerate(zip(before, pool.images, strict=True)):
            drawn[slot] += old is not new
    # Five standard deviations of binomial counts: 2000 +- 5 * 31.6 swaps, 400 +- 5 * 19 a slot.
    assert abs(sum(drawn) - 2000) < 158
    assert all(abs(count - 400) < 95 for count in drawn)


@BOTH
def test_images_in_the_pool_are_detached_and_do_not_change_with_the_tensor_they_came_from(
    pool_type: type[ImagePool],
) -> None:
    pool = pool_type(1, Script(0.1, 0, 0.1, 0))
    stored_while_filling, stored_in_a_swap = batch(1).requires_grad_(True), batch(2).requires_grad_(True)
    assert not pool.query(stored_while_filling).requires_grad
    stored_while_filling.data.fill_(7)
    assert numbers(pool.query(stored_in_a_swap)) == [1]
    stored_in_a_swap.data.fill_(7)
    assert numbers(pool.query(batch(3))) == [2]


@BOTH
def test_size_0_detaches_too(pool_type: type[ImagePool]) -> None:
    assert not pool_type(0, Script()).query(batch(1).requires_grad_(True)).requires_grad


def test_images_of_different_sizes_share_a_pool_when_they_come_one_by_one() -> None:
    pool = ImagePool(1, Script(0.1, 0))
    pool.query(torch.zeros(1, 3, 4, 8))
    assert pool.query(torch.ones(1, 3, 8, 4)).shape == (1, 3, 4, 8)


@BOTH
@pytest.mark.parametrize("queries_before", [1, 3, 40])
def test_a_saved_pool_continues_as_if_it_had_never_stopped(pool_type: type[ImagePool], queries_before: int) -> None:
    source = random.Random(5)
    pool = pool_type(4, source)
    for number in range(queries_before):
        pool.query(batch(number))
    file = io.BytesIO()
    torch.save(pool.state_dict(), file)
    file.seek(0)
    resumed_source = random.Random()
    resumed_source.setstate(source.getstate())
    resumed = pool_type(4, resumed_source)
    resumed.load_state_dict(torch.load(file, weights_only=True), torch.device("cpu"))
    for number in range(100, 150):
        assert numbers(resumed.query(batch(number))) == numbers(pool.query(batch(number)))


@BOTH
def test_a_saved_pool_is_not_changed_by_what_the_pool_does_next(pool_type: type[ImagePool]) -> None:
    pool = pool_type(1, Script(0.1, 0))
    pool.query(batch(1))
    state = pool.state_dict()
    pool.query(batch(2))
    assert numbers(torch.stack(state["images"])) == [1]


@BOTH
def test_a_saved_pool_takes_no_more_than_its_images(pool_type: type[ImagePool]) -> None:
    """Also pickled, as it is when ranks send theirs to the first one: views would take the whole stack with each."""
    pool = pool_type(50, Script())
    for number in range(20):
        pool.query(torch.full((1, 3, 32, 32), float(number)))
    images = 20 * 3 * 32 * 32 * 4
    assert images < len(pickle.dumps(pool.state_dict())) < 1.1 * images


@BOTH
def test_sizes_below_0_and_saved_images_that_do_not_fit_are_refused(pool_type: type[ImagePool]) -> None:
    with pytest.raises(ValueError, match="size must not be negative, got -1"):
        pool_type(-1, Script())
    with pytest.raises(ValueError, match="3 saved images do not fit a pool of 2"):
        pool_type(2, Script()).load_state_dict({"images": list(batch(1, 2, 3))}, torch.device("cpu"))


def test_both_pools_hand_out_and_keep_the_same_bits_under_the_same_decisions() -> None:
    """3,500 images in batches of every size around the pools', with new pixels each."""
    generator, sizes = torch.Generator().manual_seed(0), random.Random(2)
    for size in (1, 2, 5, 50):
        plain, stacked = ImagePool(size, random.Random(size)), StackedImagePool(size, random.Random(size))
        for _ in range(200):
            images = torch.randn(sizes.choice([1, 2, 3, 8]), 3, 2, 2, generator=generator)
            assert torch.equal(stacked.query(images), plain.query(images))
            assert torch.equal(torch.stack(stacked.images), torch.stack(plain.images))


def test_decisions_drawn_ahead_are_carried_out_later_as_they_were_drawn() -> None:
    """Lets the host run ahead of a device: three batches are decided before the first is exchanged."""
    counts = (2, 8, 3)
    source, ahead_source = random.Random(4), random.Random(4)
    pool, ahead = StackedImagePool(2, source), StackedImagePool(2, ahead_source)
    decisions = [ahead.decide(count) for count in counts]
    for first, count, decided in zip((0, 10, 20), counts, decisions, strict=True):
        images = batch(*range(first, first + count))
        assert numbers(ahead.exchange(images, decided)) == numbers(pool.query(images))


def test_a_stacked_pool_refuses_images_of_another_shape() -> None:
    pool = StackedImagePool(2, Script())
    pool.query(torch.zeros(1, 3, 4, 8))
    with pytest.raises(ValueError, match=r"holds images of shape \[3, 4, 8\] and was given \[3, 8, 4\]"):
        pool.query(torch.zeros(1, 3, 8, 4))
