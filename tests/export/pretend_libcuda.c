/* Stands in for libcuda.so.1: the functions that engines call, on the host's memory, for real packages to call.

   A stream's work is done at once, or recorded; a graph is a list of copies. Handles are counted, and what is wrong
   returns CUDA's own status. `python -m pytest tests/export/test_cuda_python.py` compiles it. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define OK 0
#define INVALID_VALUE 1
#define OUT_OF_MEMORY 2
#define NOT_INITIALIZED 3
#define INVALID_CONTEXT 201
#define NOT_FOUND 500
#define MANY 64
#define TOTAL ((size_t)1 << 24)

typedef struct { void *target; const void *source; size_t size; } copy_t;
typedef struct { copy_t copies[MANY]; int count; } graph_t;
typedef struct { int is_recording; graph_t recording; } stream_t;

static int initialised, depth, live;
static size_t used;

int cuInit(unsigned flags) { initialised = flags == 0; return initialised ? OK : INVALID_VALUE; }
int cuDriverGetVersion(int *version) { *version = 13040; return OK; }
int cuDeviceGetCount(int *count) { *count = 1; return initialised ? OK : NOT_INITIALIZED; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal == 0 ? OK : 101; }
int cuDeviceGetName(char *name, int length, int device) {
    strncpy(name, "Pretended GPU", length);
    return device == 0 ? OK : 101;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 8 : attribute == 76 ? 9 : -1;
    return *value < 0 || device ? INVALID_VALUE : OK;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)0x7b0000000000; live++; return device; }
int cuDevicePrimaryCtxRelease_v2(int device) { live--; return device; }
int cuCtxPushCurrent_v2(void *context) { depth++; return context == (void *)0x7b0000000000 ? OK : INVALID_CONTEXT; }
int cuCtxPopCurrent_v2(void **context) { *context = (void *)0x7b0000000000; return depth-- > 0 ? OK : INVALID_CONTEXT; }
int cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
    *free_bytes = TOTAL - used;
    *total = TOTAL;
    return depth ? OK : INVALID_CONTEXT;
}

static int allocate(void **memory, size_t size, size_t limit) {
    if (!depth) return INVALID_CONTEXT;
    if (!size) return INVALID_VALUE;
    if (size > limit) return OUT_OF_MEMORY;
    size_t *block = malloc(size + 16);
    block[0] = size;
    memset(*memory = block + 2, 171, size);
    live++;
    return OK;
}
static int release(void *memory) { live--; free((size_t *)memory - 2); return depth ? OK : INVALID_CONTEXT; }
int cuMemAlloc_v2(uint64_t *address, size_t size) {
    int status = allocate((void **)address, size, TOTAL - used);
    if (status == OK) used += size;
    return status;
}
int cuMemFree_v2(uint64_t address) { used -= ((size_t *)address)[-2]; return release((void *)address); }
int cuMemHostAlloc(void **memory, size_t size, unsigned flags) {
    return flags ? INVALID_VALUE : allocate(memory, size, TOTAL);
}
int cuMemFreeHost(void *memory) { return release(memory); }

int cuStreamCreate(stream_t **stream, unsigned flags) {
    if (flags != 1) return INVALID_VALUE;
    *stream = calloc(1, sizeof **stream);
    live++;
    return OK;
}
int cuStreamDestroy_v2(stream_t *stream) { free(stream); live--; return OK; }
int cuStreamSynchronize(stream_t *stream) { return stream->is_recording ? 900 : OK; }

static int copy(void *target, const void *source, size_t size, stream_t *stream) {
    if (!depth) return INVALID_CONTEXT;
    if (!stream->is_recording) memcpy(target, source, size);
    else stream->recording.copies[stream->recording.count++] = (copy_t){target, source, size};
    return OK;
}
int cuMemcpyHtoDAsync_v2(uint64_t target, const void *source, size_t size, stream_t *stream) {
    return copy((void *)target, source, size, stream);
}
int cuMemcpyDtoHAsync_v2(void *target, uint64_t source, size_t size, stream_t *stream) {
    return copy(target, (void *)source, size, stream);
}

int cuStreamBeginCapture_v2(stream_t *stream, int mode) {
    if (mode != 1 || stream->is_recording) return INVALID_VALUE;
    stream->is_recording = 1;
    stream->recording.count = 0;
    return OK;
}
int cuStreamEndCapture(stream_t *stream, graph_t **graph) {
    *graph = NULL;
    if (!stream->is_recording) return INVALID_VALUE;
    stream->is_recording = 0;
    if (!stream->recording.count) return 901; /* as if something in it could not be recorded */
    *graph = malloc(sizeof **graph);
    **graph = stream->recording;
    live++;
    return OK;
}
int cuGraphInstantiateWithFlags(graph_t **executable, graph_t *graph, unsigned long long flags) {
    *executable = malloc(sizeof **executable);
    **executable = *graph;
    live++;
    return flags ? INVALID_VALUE : OK;
}
int cuGraphLaunch(graph_t *executable, stream_t *stream) {
    if (stream->is_recording) return 4242; /* a status that no package knows */
    for (int index = 0; index < executable->count; index++) {
        copy_t *each = &executable->copies[index];
        memcpy(each->target, each->source, each->size);
    }
    return OK;
}
int cuGraphDestroy(graph_t *graph) { free(graph); live--; return OK; }
int cuGraphExecDestroy(graph_t *executable) { free(executable); live--; return OK; }

int cuGetErrorName(int status, const char **name) {
    *name = status == 901 ? "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED" : NULL;
    return *name ? OK : INVALID_VALUE;
}

/* What is still held, for the test. */
int pretended_live(void) { return live; }

/* cuda-python finds functions by this one, under their names without a version. */
#define ENTRY(symbol, function) if (!strcmp(name, symbol)) { *found = (void *)function; return OK; }
int cuGetProcAddress_v2(const char *name, void **found, int version, uint64_t flags, int *status) {
    (void)version, (void)flags;
    if (status) *status = 0;
    ENTRY("cuInit", cuInit) ENTRY("cuDriverGetVersion", cuDriverGetVersion) ENTRY("cuDeviceGetCount", cuDeviceGetCount)
    ENTRY("cuDeviceGet", cuDeviceGet) ENTRY("cuDeviceGetName", cuDeviceGetName)
    ENTRY("cuDeviceGetAttribute", cuDeviceGetAttribute) ENTRY("cuDevicePrimaryCtxRetain", cuDevicePrimaryCtxRetain)
    ENTRY("cuDevicePrimaryCtxRelease", cuDevicePrimaryCtxRelease_v2) ENTRY("cuCtxPushCurrent", cuCtxPushCurrent_v2)
    ENTRY("cuCtxPopCurrent", cuCtxPopCurrent_v2) ENTRY("cuMemGetInfo", cuMemGetInfo_v2)
    ENTRY("cuMemAlloc", cuMemAlloc_v2) ENTRY("cuMemFree", cuMemFree_v2) ENTRY("cuMemHostAlloc", cuMemHostAlloc)
    ENTRY("cuMemFreeHost", cuMemFreeHost) ENTRY("cuStreamCreate", cuStreamCreate)
    ENTRY("cuStreamDestroy", cuStreamDestroy_v2) ENTRY("cuStreamSynchronize", cuStreamSynchronize)
    ENTRY("cuMemcpyHtoDAsync", cuMemcpyHtoDAsync_v2) ENTRY("cuMemcpyDtoHAsync", cuMemcpyDtoHAsync_v2)
    ENTRY("cuStreamBeginCapture", cuStreamBeginCapture_v2) ENTRY("cuStreamEndCapture", cuStreamEndCapture)
    ENTRY("cuGraphInstantiate", cuGraphInstantiateWithFlags)
    ENTRY("cuGraphInstantiateWithFlags", cuGraphInstantiateWithFlags) ENTRY("cuGraphLaunch", cuGraphLaunch)
    ENTRY("cuGraphDestroy", cuGraphDestroy) ENTRY("cuGraphExecDestroy", cuGraphExecDestroy)
    ENTRY("cuGetErrorName", cuGetErrorName) ENTRY("cuGetProcAddress", cuGetProcAddress_v2)
    *found = NULL;
    if (status) *status = 1;
    return NOT_FOUND;
}
