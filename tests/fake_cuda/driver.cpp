// A libcuda.so.1 without a GPU: "sm_90" devices whose memory is this process's, with the calls that glam_deploy and
// cuda.core make. Each device has memory, streams and contexts of its own, and cannot use those of another. It is as strict as a GPU is unforgiving, and says what was wrong. Kernels run as the functions glam_host_NAME
// of the libraries that GLAM_FAKE_CUDA_KERNELS names, colons between them; GLAM_FAKE_CUDA_DEVICES is their number (1),
// GLAM_FAKE_CUDA_VERSION=12020 makes the driver one of CUDA 12.2, and GLAM_FAKE_CUDA_INIT=803 is what cuInit returns.
#include "calls_device.h"
#include "calls_kernel.h"
#include "calls_memory.h"
#include "calls_stream.h"

Status cuGetErrorName(int, const char** name) {
    *name = "an error of the fake driver";
    return SUCCESS;
}

Status cuGetErrorString(int, const char** words) {
    *words = "see tests/fake_cuda";
    return SUCCESS;
}

#define LISTED(FUNCTION) {#FUNCTION, reinterpret_cast<void*>(FUNCTION)}
// clang-format off
const std::map<std::string, void*> ENTRIES = {
    LISTED(cuCtxCreate), LISTED(cuCtxGetCurrent), LISTED(cuCtxGetDevice), LISTED(cuCtxGetStreamPriorityRange),
    LISTED(cuCtxPopCurrent), LISTED(cuCtxPushCurrent), LISTED(cuCtxSetCurrent), LISTED(cuCtxSynchronize),
    LISTED(cuDeviceGet), LISTED(cuDeviceGetAttribute), LISTED(cuDeviceGetCount), LISTED(cuDeviceGetName),
    LISTED(cuDeviceGetUuid), LISTED(cuDevicePrimaryCtxRelease), LISTED(cuDevicePrimaryCtxRetain),
    LISTED(cuDeviceTotalMem), LISTED(cuDriverGetVersion), LISTED(cuEventCreate), LISTED(cuEventDestroy),
    LISTED(cuEventElapsedTime), LISTED(cuEventQuery), LISTED(cuEventRecord), LISTED(cuEventSynchronize),
    LISTED(cuFuncGetParamInfo), LISTED(cuFuncLoad), LISTED(cuGetErrorName), LISTED(cuGetErrorString),
    LISTED(cuGraphDestroy), LISTED(cuGraphExecDestroy), LISTED(cuGraphGetNodes), LISTED(cuGraphInstantiate),
    LISTED(cuGraphInstantiateWithFlags), LISTED(cuGraphLaunch), LISTED(cuGraphMemcpyNodeGetParams),
    LISTED(cuGraphNodeGetType), LISTED(cuInit), LISTED(cuKernelGetParamInfo),
    LISTED(cuLaunchHostFunc), LISTED(cuLaunchKernel), LISTED(cuLaunchKernelEx), LISTED(cuLibraryGetKernel),
    LISTED(cuLibraryLoadData), LISTED(cuLibraryUnload), LISTED(cuMemAlloc), LISTED(cuMemAllocHost), LISTED(cuMemFree),
    LISTED(cuMemFreeHost), LISTED(cuMemGetInfo), LISTED(cuMemHostAlloc), LISTED(cuMemcpyAsync), LISTED(cuMemcpyDtoDAsync),
    LISTED(cuMemcpyDtoHAsync), LISTED(cuMemcpyHtoDAsync), LISTED(cuMemsetD8Async), LISTED(cuModuleGetFunction),
    LISTED(cuModuleLoadData), LISTED(cuModuleUnload), LISTED(cuPointerGetAttribute), LISTED(cuPointerGetAttributes),
    LISTED(cuStreamBeginCapture), LISTED(cuStreamCreate), LISTED(cuStreamCreateWithPriority), LISTED(cuStreamDestroy),
    LISTED(cuStreamEndCapture), LISTED(cuStreamGetCaptureInfo), LISTED(cuStreamGetCtx), LISTED(cuStreamGetFlags), LISTED(cuStreamGetPriority),
    LISTED(cuStreamIsCapturing), LISTED(cuStreamQuery), LISTED(cuStreamSynchronize), LISTED(cuStreamWaitEvent),
    LISTED(cuThreadExchangeStreamCaptureMode),
};
// clang-format on

#define EXPORTED extern "C" __attribute__((visibility("default")))

// What is not here is missing as in an older driver: the bindings then raise an error with its name.
EXPORTED int cuGetProcAddress_v2(const char* name, void** function, int, unsigned long long, int* missing) {
    const auto entry = ENTRIES.find(name);
    *function = entry == ENTRIES.end() ? nullptr : entry->second;
    if (std::string(name) == "cuGetProcAddress") *function = reinterpret_cast<void*>(cuGetProcAddress_v2);
    if (missing) *missing = *function == nullptr;
    return *function ? SUCCESS : NOT_FOUND;
}

// ---- for tests: see tests/fake_cuda/control.py

EXPORTED void fake_cuda_record(int yes) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    machine.log.clear();
    machine.recording = yes;
}

// All lines since the recording began; valid until the next call.
EXPORTED const char* fake_cuda_log() {
    static std::string text;
    const std::lock_guard<std::recursive_mutex> guard(lock);
    text.clear();
    for (const auto& line : machine.log) text += line + "\n";
    return text.c_str();
}

EXPORTED unsigned long long fake_cuda_count(const char* name) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    return counts[name];
}

EXPORTED size_t fake_cuda_live(int type, int device) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    return machine.memory.count(static_cast<MemoryType>(type), device);
}

// A function that counts as a kernel: work of a library that is no host function to CUDA.
EXPORTED int fake_cuda_compute(void* stream, Function function) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    if (const Status status = launchable(stream, current_device())) return status;
    return enqueue(stream, {"kernel of a library", [=] { return function(nullptr), SUCCESS; }, {}});
}

// As if the process had been started again: forgets a sticky error, the work that was under way and recordings.
EXPORTED void fake_cuda_repair() {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    for (Stream* stream : machine.streams) stream->pending.clear(), stream->capture.reset();
    machine.captures.clear();
    machine.memory.hang_canaries();
    machine.broken = SUCCESS;
}
