"""Makes files of samples with the libraries that define their formats, for tests of what is read of them."""

from pathlib import Path
from typing import Any

import numpy as np

HEIGHT, WIDTH = 13, 21


def noise(dtype: str, *shape: int, low: int | None = None, high: int | None = None, seed: int = 0) -> np.ndarray:
    """Return random samples of all values of a type, or of those from `low` to `high`."""
    random = np.random.default_rng(seed)
    if dtype == "float32":
        return random.uniform(-1000 if low is None else low, 3000 if high is None else high, shape).astype(dtype)
    held = np.iinfo(dtype)
    least, most = held.min if low is None else low, held.max if high is None else high
    return random.integers(least, most + 1, shape).astype(dtype)


def make_dicom(path: Path, stored: np.ndarray, *, bits: int | None = None, **elements: Any) -> None:
    """Write frames [S, H, W] or [S, H, W, 3] of whole numbers as a DICOM file of a patient called Secret."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.PatientName, dataset.PatientID = "Secret^Patient", "Secret4711"
    dataset.PatientBirthDate, dataset.StudyDescription = "19530724", "Secret study"
    dataset.SamplesPerPixel = stored.shape[3] if stored.ndim == 4 else 1
    dataset.PhotometricInterpretation = "RGB" if dataset.SamplesPerPixel == 3 else "MONOCHROME2"
    if dataset.SamplesPerPixel == 3:
        dataset.PlanarConfiguration = 0
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = stored.shape[:3]
    dataset.BitsAllocated = 8 * stored.dtype.itemsize
    dataset.BitsStored = bits or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    pydicom.dcmwrite(path, dataset)
