#include "subspace_records.h"

#include "event_tensor.h"

static const struct gd_tensor_tag eigenvalues_tag = {
    GD_TAG_EIGENVALUES,
    "The eigenvalues of the matrix K of dot products between the last M+1 gradients (M is the run's `max_lag`), each "
    "as "
    "a share of their sum, `eig(K) / tr K`: M+1 numbers from 0 to 1 that add up to 1, the largest of which is "
    "`subspace/top_share`; one far to the right and the rest near 0, the gradients lie along a line, all near 1/(M+1), "
    "they are orthogonal. Equal bins from 0 to 1; for few steps, three to each doubling of the run.",
};

static const struct gd_tensor_tag cosines_tag = {
    GD_TAG_COSINE_MATRIX,
    "The cosines between the last M+1 gradients, `<g_i, g_j> / (|g_i| |g_j|)` (M is the run's `max_lag`): row and "
    "column "
    "0 are this step's gradient, m is the one m strides (steps, by default) earlier, so age grows to the right and "
    "downwards, and the first row is `coherence/cosine_lag<m>`. The bar is the scale: dark blue 1, near white 0, dark "
    "orange -1; grey where there is no cosine (a step was not seen, or its gradient is 0). One image to each doubling "
    "of "
    "the run.",
};

size_t gd_subspace_records_max(const struct gd_open_run *open_run) {
    return gd_event_tensor_bytes_max(eigenvalues_tag, GD_HISTOGRAM_BINS * sizeof(struct gd_histogram_bin)) +
           gd_event_tensor_bytes_max(cosines_tag, gd_heatmap_png_bytes(open_run->max_lag + 1));
}

void gd_subspace_append_eigenvalues(struct gd_record_buffer *buffer, double wall_time, int64_t step,
                                    const struct gd_spectrum *spectrum) {
    struct gd_histogram_bin bins[GD_HISTOGRAM_BINS];
    uint32_t counted = 0;
    for (int i = 0; i < GD_HISTOGRAM_BINS; i++) {
        // by rounding the least may be below 0 and the largest above 1
        double right = (double)(i + 1) / GD_HISTOGRAM_BINS;
        uint32_t below = i + 1 < GD_HISTOGRAM_BINS ? gd_subspace_below(spectrum, right) : spectrum->size;
        below = below > counted ? below : counted;
        bins[i] = (struct gd_histogram_bin){(double)i / GD_HISTOGRAM_BINS, right, below - counted};
        counted = below;
    }
    gd_event_append_histogram(buffer, wall_time, step, eigenvalues_tag, bins);
}

void gd_subspace_append_cosines(struct gd_record_buffer *buffer, double wall_time, int64_t step,
                                const struct gd_gram *gram, struct gd_heatmap *heatmap) {
    double cosines[GD_WINDOW_MAX * GD_WINDOW_MAX];
    for (uint32_t i = 0; i < gram->size; i++)
        for (uint32_t j = 0; j < gram->size; j++)
            cosines[i * gram->size + j] = gd_subspace_cosine(gram, i, j);
    struct gd_heatmap_png png;
    if (gd_heatmap_draw(heatmap, cosines, &png))
        gd_event_append_image(buffer, wall_time, step, cosines_tag, png.width, png.height, png.data, png.bytes);
}
