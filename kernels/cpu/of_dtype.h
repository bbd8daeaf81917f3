/* The operators for tensors of T, computed in WIDE; operators.c includes this once for each dtype. */

#define FUNCTION(name) JOIN(name, NAME)

/* --- statistics ---------------------------------------------------------------------------------------------------- */

/* Writes mean and M2 (the sum of squared deviations from that mean) of each channel over some pixels [pixels, channels].
 * Sums are of deviations from the first pixel, so that the mean of one value many times is that value. */
static void FUNCTION(moments_of_pixels)(const T *restrict x, int64_t pixels, int64_t channels, WIDE *restrict mean,
                                        WIDE *restrict m2) {
    for (int64_t c = 0; c < channels; c++) mean[c] = m2[c] = 0;
    for (int64_t i = 0; i < pixels; i++)
#pragma omp simd
        for (int64_t c = 0; c < channels; c++) mean[c] += LOAD(x[i * channels + c]) - LOAD(x[c]);
    for (int64_t c = 0; c < channels; c++) mean[c] = LOAD(x[c]) + mean[c] / pixels;
    for (int64_t i = 0; i < pixels; i++)
#pragma omp simd
        for (int64_t c = 0; c < channels; c++) {
            WIDE deviation = LOAD(x[i * channels + c]) - mean[c];
            m2[c] += deviation * deviation;
        }
}

/* The same of one channel, whose pixels are adjacent. */
static void FUNCTION(moments_of_plane)(const T *restrict x, int64_t pixels, WIDE *mean, WIDE *m2) {
    WIDE lanes[LANES] = {0}, sum = 0, squares = 0, first = LOAD(x[0]);
    int64_t whole = pixels / LANES * LANES;
    for (int64_t i = 0; i < whole; i += LANES)
#pragma omp simd
        for (int l = 0; l < LANES; l++) lanes[l] += LOAD(x[i + l]) - first;
    for (int l = 0; l < LANES; l++) sum += lanes[l], lanes[l] = 0;
    for (int64_t i = whole; i < pixels; i++) sum += LOAD(x[i]) - first;
    sum = first + sum / pixels;
    for (int64_t i = 0; i < whole; i += LANES)
#pragma omp simd
        for (int l = 0; l < LANES; l++) {
            WIDE deviation = LOAD(x[i + l]) - sum;
            lanes[l] += deviation * deviation;
        }
    for (int l = 0; l < LANES; l++) squares += lanes[l];
    for (int64_t i = whole; i < pixels; i++) squares += (LOAD(x[i]) - sum) * (LOAD(x[i]) - sum);
    *mean = sum, *m2 = squares;
}

/* Combines the moments of parts (Chan et al. 1979) to mean and rstd. Part p has counts(p) pixels and lies at
 * parts + 2 * p * stride: mean[stride], then M2[stride]. */
static void FUNCTION(combine_moments)(const WIDE *parts, int64_t number, int64_t of_a_part, int64_t pixels,
                                      int64_t stride, WIDE *restrict mean, WIDE *restrict rstd, double eps) {
    for (int64_t c = 0; c < stride; c++) mean[c] = parts[c], rstd[c] = parts[stride + c];
    for (int64_t p = 1; p < number; p++) {
        const WIDE *restrict other = parts + 2 * p * stride;
        WIDE before = p * of_a_part, count = MIN(of_a_part, pixels - p * of_a_part);
        WIDE share = count / (before + count), weight = before * share;
        for (int64_t c = 0; c < stride; c++) {
            WIDE step = other[c] - mean[c];
            mean[c] += step * share;
            rstd[c] += other[stride + c] + step * step * weight;
        }
    }
    for (int64_t c = 0; c < stride; c++) rstd[c] = 1 / (WIDE)sqrt(rstd[c] / pixels + eps);
}

static void FUNCTION(statistics)(const Call *call) {
    int64_t images = call->images, channels = call->channels, height = call->height, width = call->width;
    int64_t pixels = height * width, rows = call->rows_of_a_part;
    int64_t number = (height + rows - 1) / rows, stride = call->channels_last ? channels : 1;
    int64_t planes = call->channels_last ? images : images * channels;
    const T *x = call->x;
    WIDE *mean = call->statistics, *rstd = mean + images * channels, *parts = call->parts;
#pragma omp parallel for collapse(2) if (images * channels * pixels > SMALL)
    for (int64_t plane = 0; plane < planes; plane++)
        for (int64_t part = 0; part < number; part++) {
            const T *start = x + (plane * pixels + part * rows * width) * stride;
            int64_t count = MIN(rows, height - part * rows) * width;
            WIDE *moments = parts + 2 * (plane * number + part) * stride;
            if (call->channels_last)
                FUNCTION(moments_of_pixels)(start, count, channels, moments, moments + channels);
            else
                FUNCTION(moments_of_plane)(start, count, moments, moments + 1);
        }
    for (int64_t plane = 0; plane < planes; plane++)
        FUNCTION(combine_moments)(parts + 2 * plane * number * stride, number, rows * width, pixels, stride,
                                  mean + plane * stride, rstd + plane * stride, call->eps);
}

/* --- forward ------------------------------------------------------------------------------------------------------- */

/* A ReLU, whose slope is 0, makes 0 of what is negative, and not -0; a NaN stays one. */
static inline WIDE FUNCTION(activated)(WIDE x, WIDE slope) { return x > 0 ? x : (x != x || slope != 0 ? slope * x : 0); }

/* Writes a row of y: act((x - mean) * rstd), with residual where it is not null. */
static void FUNCTION(normalise_row)(const T *restrict x, const T *restrict residual, T *restrict y, int64_t width,
                                    int64_t inner, const WIDE *restrict mean, const WIDE *restrict rstd, WIDE slope) {
    if (inner == 1) {
        WIDE m = *mean, r = *rstd;
        if (residual)
#pragma omp simd
            for (int64_t i = 0; i < width; i++)
                y[i] = STORE(FUNCTION(activated)((LOAD(x[i]) - m) * r, slope) + LOAD(residual[i]));
        else
#pragma omp simd
            for (int64_t i = 0; i < width; i++) y[i] = STORE(FUNCTION(activated)((LOAD(x[i]) - m) * r, slope));
        return;
    }
    for (int64_t w = 0; w < width; w++, x += inner, y += inner) {
        if (residual)
#pragma omp simd
            for (int64_t c = 0; c < inner; c++)
                y[c] = STORE(FUNCTION(activated)((LOAD(x[c]) - mean[c]) * rstd[c], slope) +
                             LOAD(residual[w * inner + c]));
        else
#pragma omp simd
            for (int64_t c = 0; c < inner; c++)
                y[c] = STORE(FUNCTION(activated)((LOAD(x[c]) - mean[c]) * rstd[c], slope));
    }
}

void FUNCTION(forward)(const Call *call) {
    FUNCTION(statistics)(call);
    int64_t channels = call->channels, height = call->height, width = call->width, pad = call->pad;
    int64_t inner = call->channels_last ? channels : 1;
    int64_t planes = call->images * channels / inner, padded_width = width + 2 * pad;
    int64_t row_of_y = padded_width * inner, plane_of_y = (height + 2 * pad) * row_of_y;
    const T *x = call->x, *residual = call->residual;
    const WIDE *mean = call->statistics, *rstd = mean + call->images * channels;
    T *y = call->y;
    if (inner == 1 && !pad && (!residual || call->residual_row == width)) /* a plane is one long row */
        width *= height, height = 1;
#pragma omp parallel for collapse(2) if (planes * height * width * inner > SMALL)
    for (int64_t plane = 0; plane < planes; plane++)
        for (int64_t row = 0; row < height; row++) {
            T *padded = y + plane * plane_of_y + (row + pad) * row_of_y, *result = padded + pad * inner;
            FUNCTION(normalise_row)(
                x + (plane * height + row) * width * inner,
                residual ? residual + plane * call->residual_plane + row * call->residual_row : NULL, result, width,
                inner, mean + plane * inner, rstd + plane * inner, call->slope);
            for (int64_t i = 1; i <= pad; i++) {
                memcpy(result - i * inner, result + i * inner, inner * sizeof(T));
                memcpy(result + (width - 1 + i) * inner, result + (width - 1 - i) * inner, inner * sizeof(T));
            }
            if (1 <= row && row <= pad) memcpy(padded - 2 * row * row_of_y, padded, row_of_y * sizeof(T));
            int64_t below = height - 1 - row;
            if (1 <= below && below <= pad) memcpy(padded + 2 * below * row_of_y, padded, row_of_y * sizeof(T));
        }
}

/* --- backward: dx = rstd * (g - mean(g) - xhat * mean(g * xhat)), g = dy * act'(xhat) ------------------------------- */

/* What passes through the activation: nothing through a ReLU's negative side, not even what is infinite. */
static inline WIDE FUNCTION(passed)(WIDE gradient, WIDE deviation, WIDE slope) {
    return deviation > 0 ? gradient : (slope != 0 ? slope * gradient : 0);
}

/* Writes the sums of g and of g * xhat of each channel over some pixels [pixels, channels]. */
static void FUNCTION(sums_of_pixels)(const T *restrict x, const T *restrict dy, int64_t pixels, int64_t channels,
                                     const WIDE *restrict mean, const WIDE *restrict rstd, WIDE slope,
                                     WIDE *restrict of_g, WIDE *restrict of_product) {
    for (int64_t c = 0; c < channels; c++) of_g[c] = of_product[c] = 0;
    for (int64_t i = 0; i < pixels; i++, x += channels, dy += channels)
#pragma omp simd
        for (int64_t c = 0; c < channels; c++) {
            WIDE deviation = LOAD(x[c]) - mean[c], gradient = LOAD(dy[c]);
            gradient = FUNCTION(passed)(gradient, deviation, slope);
            of_g[c] += gradient;
            of_product[c] += gradient * deviation;
        }
    for (int64_t c = 0; c < channels; c++) of_product[c] *= rstd[c];
}

/* The same of one channel, whose pixels are adjacent. */
static void FUNCTION(sums_of_plane)(const T *restrict x, const T *restrict dy, int64_t pixels, WIDE mean, WIDE rstd,
                                    WIDE slope, WIDE *of_g, WIDE *of_product) {
    WIDE lanes[LANES] = {0}, products[LANES] = {0}, sum = 0, sum_of_products = 0;
    int64_t whole = pixels / LANES * LANES;
    for (int64_t i = 0; i < whole; i += LANES)
#pragma omp simd
        for (int l = 0; l < LANES; l++) {
            WIDE deviation = LOAD(x[i + l]) - mean, gradient = LOAD(dy[i + l]);
            gradient = FUNCTION(passed)(gradient, deviation, slope);
            lanes[l] += gradient;
            products[l] += gradient * deviation;
        }
    for (int l = 0; l < LANES; l++) sum += lanes[l], sum_of_products += products[l];
    for (int64_t i = whole; i < pixels; i++) {
        WIDE deviation = LOAD(x[i]) - mean, gradient = LOAD(dy[i]);
        gradient = FUNCTION(passed)(gradient, deviation, slope);
        sum += gradient;
        sum_of_products += gradient * deviation;
    }
    *of_g = sum, *of_product = sum_of_products * rstd;
}

static inline T FUNCTION(dx_of)(T x, T dy, WIDE mean, WIDE rstd, WIDE slope, WIDE mean_g, WIDE mean_product) {
    WIDE deviation = LOAD(x) - mean, gradient = LOAD(dy);
    gradient = FUNCTION(passed)(gradient, deviation, slope);
    return STORE(rstd * (gradient - mean_g - deviation * rstd * mean_product));
}

void FUNCTION(backward)(const Call *call) {
    int64_t images = call->images, channels = call->channels, height = call->height, width = call->width;
    int64_t rows = call->rows_of_a_part, number = (height + rows - 1) / rows, pixels = height * width;
    int64_t inner = call->channels_last ? channels : 1, planes = images * channels / inner;
    const T *x = call->x, *dy = call->dy;
    const WIDE *means = call->statistics, *rstds = means + images * channels;
    WIDE *parts = call->parts, slope = call->slope;
    T *dx = call->dx;
#pragma omp parallel for collapse(2) if (planes * pixels * inner > SMALL)
    for (int64_t plane = 0; plane < planes; plane++)
        for (int64_t part = 0; part < number; part++) {
            int64_t start = (plane * pixels + part * rows * width) * inner;
            int64_t count = MIN(rows, height - part * rows) * width;
            WIDE *sums = parts + 2 * (plane * number + part) * inner;
            const WIDE *mean = means + plane * inner, *rstd = rstds + plane * inner;
            if (call->channels_last)
                FUNCTION(sums_of_pixels)(x + start, dy + start, count, channels, mean, rstd, slope, sums, sums + inner);
            else
                FUNCTION(sums_of_plane)(x + start, dy + start, count, *mean, *rstd, slope, sums, sums + 1);
        }
    int64_t of_a_plane = 2 * number * inner; /* numbers in `parts` */
    for (int64_t plane = 0; plane < planes; plane++) { /* the first part of a plane becomes the means of all of it */
        WIDE *restrict first = parts + plane * of_a_plane;
        for (int64_t part = 1; part < number; part++)
            for (int64_t c = 0; c < 2 * inner; c++) first[c] += first[2 * part * inner + c];
        for (int64_t c = 0; c < 2 * inner; c++) first[c] /= pixels;
    }
    if (inner == 1) width = pixels, height = 1; /* a plane is one long row */
#pragma omp parallel for collapse(2) if (planes * pixels * inner > SMALL)
    for (int64_t plane = 0; plane < planes; plane++)
        for (int64_t row = 0; row < height; row++) {
            int64_t start = (plane * height + row) * width * inner;
            const WIDE *restrict mean = means + plane * inner, *restrict rstd = rstds + plane * inner;
            const WIDE *restrict mean_g = parts + plane * of_a_plane, *restrict mean_product = mean_g + inner;
            const T *restrict x_row = x + start, *restrict dy_row = dy + start;
            T *restrict dx_row = dx + start;
            if (inner == 1) {
                WIDE m = *mean, r = *rstd, g = *mean_g, p = *mean_product;
#pragma omp simd
                for (int64_t i = 0; i < width; i++)
                    dx_row[i] = FUNCTION(dx_of)(x_row[i], dy_row[i], m, r, slope, g, p);
                continue;
            }
            for (int64_t w = 0; w < width; w++, x_row += inner, dy_row += inner, dx_row += inner)
#pragma omp simd
                for (int64_t c = 0; c < inner; c++)
                    dx_row[c] = FUNCTION(dx_of)(x_row[c], dy_row[c], mean[c], rstd[c], slope, mean_g[c], mean_product[c]);
        }
}

/* --- the gradient of reflection padding ----------------------------------------------------------------------------- */

/* Writes those indices of a padded side that pixel i of `size` went to; returns how many there are. */
static int FUNCTION(images_of)(int64_t i, int64_t size, int64_t pad, int64_t *padded) {
    int number = 0;
    padded[number++] = i + pad;
    if (1 <= i && i <= pad) padded[number++] = pad - i;
    if (1 <= size - 1 - i && size - 1 - i <= pad) padded[number++] = 2 * (size - 1) - i + pad;
    return number;
}

/* Writes result[i] = sum over the sources of source[i]. */
static void FUNCTION(add_up)(const T **sources, int number, T *restrict result, int64_t count) {
    if (number == 1) {
        memcpy(result, sources[0], count * sizeof(T));
        return;
    }
    for (int64_t start = 0; start < count; start += BLOCK) {
        WIDE sum[BLOCK] = {0};
        int64_t size = MIN(BLOCK, count - start);
        for (int s = 0; s < number; s++)
#pragma omp simd
            for (int64_t i = 0; i < size; i++) sum[i] += LOAD(sources[s][start + i]);
#pragma omp simd
        for (int64_t i = 0; i < size; i++) result[start + i] = STORE(sum[i]);
    }
}

void FUNCTION(unpad)(const Call *call) {
    int64_t height = call->height, width = call->width, pad = call->pad;
    int64_t inner = call->channels_last ? call->channels : 1, planes = call->images * call->channels / inner;
    int64_t padded_row = (width + 2 * pad) * inner;
    const T *dy = call->dy;
    T *dx = call->dx;
#pragma omp parallel for collapse(2) if (planes * height * width * inner > SMALL)
    for (int64_t plane = 0; plane < planes; plane++)
        for (int64_t row = 0; row < height; row++) {
            const T *padded = dy + plane * (height + 2 * pad) * padded_row, *sources[9];
            T *result = dx + (plane * height + row) * width * inner;
            int64_t rows[3], columns[3];
            int down = FUNCTION(images_of)(row, height, pad, rows);
            for (int64_t w = 0; w < width;) {
                int across = FUNCTION(images_of)(w, width, pad, columns), number = 0;
                int64_t until = pad < w && w < width - 1 - pad ? width - 1 - pad : w + 1; /* up to the edge at once */
                for (int i = 0; i < down; i++)
                    for (int j = 0; j < across; j++) sources[number++] = padded + rows[i] * padded_row + columns[j] * inner;
                FUNCTION(add_up)(sources, number, result + w * inner, (until - w) * inner);
                w = until;
            }
        }
}

#undef FUNCTION
#undef T
#undef WIDE
#undef NAME
#undef LOAD
#undef STORE
