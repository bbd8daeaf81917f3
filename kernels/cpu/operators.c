/* Computes instance norm with what stands around it, and the gradient of reflection padding, on a CPU.
 *
 * `compilation.py` compiles this file, `operators.py` calls it. Tensors are 4-D and dense: channels last ("inner" is the
 * number of channels C, "planes" that of images N) or channels first ("inner" is 1, "planes" is N * C). A row is then
 * W * inner elements, a plane H rows, whatever the format; only the statistics are computed differently.
 *
 * Statistics and sums are float32, or float64 for float64 tensors. Parts whose size does not depend on the number of
 * threads are combined in one order, so that the bits are the same every time.
 */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

enum { LANES = 16, BLOCK = 64, SMALL = 32768 }; /* a vector's elements; a few vectors'; those that one thread takes */

typedef struct { /* the arguments of all functions; what a function does not use is not read */
    int64_t images, channels, height, width, pad;
    int64_t channels_last;
    int64_t residual_plane, residual_row; /* strides in elements; columns are adjacent */
    double eps, slope;                    /* slope: of the activation below zero, 1 where there is none */
    void *x, *residual, *y, *dy, *dx;
    void *statistics; /* [N, C] mean, then [N, C] rstd */
    void *parts;      /* room for `parts_needed` numbers */
    int64_t rows_of_a_part;
} Call;

static inline int64_t reflected(int64_t i, int64_t size) {
    i = i < 0 ? -i : i;
    return i < size ? i : 2 * (size - 1) - i;
}

typedef struct {
    uint16_t bits;
} bfloat16;

static inline float from_bfloat16(bfloat16 x) {
    union {
        uint32_t bits;
        float value;
    } wide = {(uint32_t)x.bits << 16};
    return wide.value;
}

static inline bfloat16 to_bfloat16(float x) { /* to nearest, ties to even */
    union {
        float value;
        uint32_t bits;
    } wide = {x};
    uint32_t rounded = (wide.bits + 0x7fff + ((wide.bits >> 16) & 1)) >> 16;
    return (bfloat16){(wide.bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : (uint16_t)rounded};
}

#define SAME(x) (x)

#define T float
#define WIDE float
#define NAME float32
#define LOAD SAME
#define STORE SAME
#include "of_dtype.h"

#define T double
#define WIDE double
#define NAME float64
#define LOAD SAME
#define STORE SAME
#include "of_dtype.h"

#define T bfloat16
#define WIDE float
#define NAME bfloat16
#define LOAD from_bfloat16
#define STORE to_bfloat16
#include "of_dtype.h"
