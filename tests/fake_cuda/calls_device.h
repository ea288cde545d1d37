// The device, its context, and what may be asked of them.
#pragma once

#include <cstdlib>

#include "state.h"

constexpr int CAPABILITY = 90, CUDA_VERSION = 13000;
constexpr const char* DEVICE_NAME = "Fake GPU";
const std::map<int, int> ATTRIBUTES = {
    {MAX_THREADS_PER_BLOCK, 1024},   {WARP_SIZE, 32},
    {CLOCK_RATE, 1980000},           {MULTIPROCESSOR_COUNT, 132},
    {MEMORY_CLOCK_RATE, 2619000},    {GLOBAL_MEMORY_BUS_WIDTH, 5120},
    {UNIFIED_ADDRESSING, 1},         {CAPABILITY_MAJOR, CAPABILITY / 10},
    {CAPABILITY_MINOR, CAPABILITY % 10},
};

Status cuInit(unsigned) {
    ENTER(NOTHING);
    if (const char* status = std::getenv("GLAM_FAKE_CUDA_INIT")) return static_cast<Status>(std::atoi(status));
    if (device_count() == 0) return NO_DEVICE;
    if (!initialized) set_up_devices();
    initialized = true;
    return SUCCESS;
}

Status cuDriverGetVersion(int* version) {
    ENTER(NOTHING);
    const char* other = std::getenv("GLAM_FAKE_CUDA_VERSION");
    *version = other ? std::atoi(other) : CUDA_VERSION;
    return SUCCESS;
}

Status cuDeviceGetCount(int* count) {
    ENTER(INIT);
    *count = device_count();
    return SUCCESS;
}

Status cuDeviceGet(int* device, int index) {
    ENTER(INIT);
    *device = index;
    return 0 <= index && index < device_count() ? SUCCESS : INVALID_DEVICE;
}

Status cuDeviceGetName(char* name, int length, int) {
    ENTER(INIT);
    std::snprintf(name, length, "%s", DEVICE_NAME);
    return SUCCESS;
}

Status cuDeviceGetUuid(unsigned char* uuid, int device) {
    ENTER(INIT);
    std::memset(uuid, 7 + device, 16);
    return SUCCESS;
}

Status cuDeviceTotalMem(size_t* bytes, int) {
    ENTER(INIT);
    *bytes = DEVICE_BYTES;
    return SUCCESS;
}

Status cuDeviceGetAttribute(int* value, int attribute, int) {
    ENTER(INIT);
    const auto found = ATTRIBUTES.find(attribute);
    *value = found == ATTRIBUTES.end() ? 0 : found->second;
    return SUCCESS;
}

Status cuDevicePrimaryCtxRetain(void** context, int device) {
    ENTER(INIT);
    if (device < 0 || device >= device_count()) return INVALID_DEVICE;
    *context = &primaries[device];
    return SUCCESS;
}

Status cuDevicePrimaryCtxRelease(int) {
    ENTER(INIT);
    return SUCCESS;
}

// Another context: what is made in it is a stranger's. glam_deploy never calls this.
Status cuCtxCreate(void** context, void*, unsigned, int device) {
    ENTER(INIT);
    *context = made(new Context{device});
    contexts.push_back(*context);
    return SUCCESS;
}

Status cuCtxPushCurrent(void* context) {
    ENTER(INIT);
    if (!handles.count(context)) return INVALID_CONTEXT;
    contexts.push_back(context);
    return SUCCESS;
}

Status cuCtxPopCurrent(void** context) {
    ENTER(INIT);
    if (contexts.empty()) return INVALID_CONTEXT;
    *context = contexts.back();
    contexts.pop_back();
    return SUCCESS;
}

Status cuCtxGetCurrent(void** context) {
    ENTER(INIT);
    *context = contexts.empty() ? nullptr : contexts.back();
    return SUCCESS;
}

Status cuCtxSetCurrent(void* context) {
    ENTER(INIT);
    if (!contexts.empty()) contexts.pop_back();
    if (context) contexts.push_back(context);
    return SUCCESS;
}

Status cuCtxGetDevice(int* device) {
    ENTER(CURRENT);
    *device = current_device();
    return SUCCESS;
}

Status cuCtxSynchronize() {
    ENTER(SAFE);
    for (Stream* stream : machine.streams)
        if (device_of(stream->context) == current_device())
            if (const Status status = machine.drain(*stream)) return status;
    return SUCCESS;
}
