// The few types and numbers of cuda.h that the fake driver needs, so that it builds where no toolkit is installed.
// Names and values: CUDA driver API reference, https://docs.nvidia.com/cuda/cuda-driver-api.
#pragma once

#include <cstddef>
#include <cstdint>

using Address = unsigned long long;  // CUdeviceptr
using Function = void (*)(void*);    // CUhostFn

enum Status : int {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    NO_BINARY_FOR_GPU = 209,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    NOT_SUPPORTED = 801,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_UNMATCHED = 903,
    CAPTURE_UNJOINED = 904,
    CAPTURE_ISOLATION = 905,
    CAPTURE_IMPLICIT = 906,
    CAPTURED_EVENT = 907,
    CAPTURE_WRONG_THREAD = 908,
};

enum CaptureMode : int { GLOBAL = 0, THREAD_LOCAL = 1, RELAXED = 2 };
enum CaptureStatus : int { NOT_CAPTURING = 0, CAPTURING = 1, INVALIDATED = 2 };

enum NodeType : int { KERNEL_NODE = 0, MEMCPY_NODE = 1, MEMSET_NODE = 2, HOST_NODE = 3 };

enum DeviceAttribute : int {
    MAX_THREADS_PER_BLOCK = 1,
    WARP_SIZE = 10,
    CLOCK_RATE = 13,
    MULTIPROCESSOR_COUNT = 16,
    MEMORY_CLOCK_RATE = 36,
    GLOBAL_MEMORY_BUS_WIDTH = 37,
    UNIFIED_ADDRESSING = 41,
    CAPABILITY_MAJOR = 75,
    CAPABILITY_MINOR = 76,
};

enum PointerAttribute : int {
    POINTER_CONTEXT = 1,
    MEMORY_TYPE = 2,
    DEVICE_POINTER = 3,
    HOST_POINTER = 4,
    IS_MANAGED = 8,
    DEVICE_ORDINAL = 9,
};
enum MemoryType : unsigned { HOST = 1, DEVICE = 2, UNIFIED = 4 };

struct Memcpy3D {  // CUDA_MEMCPY3D
    struct End {
        size_t x, y, z, lod;
        MemoryType type;
        const void* host;
        Address device;
        void *array, *reserved;
        size_t pitch, height;
    };
    End from, to;
    size_t bytes, rows, depth;
};

constexpr unsigned NON_BLOCKING = 1;    // CU_STREAM_NON_BLOCKING
constexpr unsigned DISABLE_TIMING = 2;  // CU_EVENT_DISABLE_TIMING
