// Kernels: found in the cubin, run by the library that g++ made of the same source.
#pragma once

#include <dlfcn.h>
#include <setjmp.h>
#include <signal.h>

#include <cstdlib>
#include <sstream>

#include "cubin.h"
#include "calls_device.h"

using HostKernel = void (*)(const unsigned grid[3], const unsigned block[3], void** arguments);

struct Module {
    Cubin cubin;
    int device;  // of the context into which it was loaded
};
struct Kernel {
    Module* module;
    std::string name;
    std::vector<Parameter> parameters;
    HostKernel run;
};

Status cuModuleLoadData(void** handle, const void* image) {
    ENTER(CURRENT);
    Cubin cubin;
    if (const Status status = read_cubin(image, &cubin)) return status;
    const bool fits = cubin.capability / 10 == CAPABILITY / 10 && cubin.capability <= CAPABILITY;
    if (!fits) return NO_BINARY_FOR_GPU;
    *handle = made(new Module{cubin, current_device()});
    return SUCCESS;
}

Status cuLibraryLoadData(void** handle, const void* image, void*, void**, unsigned, void*, void**, unsigned) {
    return cuModuleLoadData(handle, image);
}

Status cuModuleUnload(void* handle) {
    ENTER(CURRENT);
    return destroy(static_cast<Module*>(handle));
}

Status cuLibraryUnload(void* handle) { return cuModuleUnload(handle); }

HostKernel host_kernel(const std::string& name) {
    const char* libraries = std::getenv("GLAM_FAKE_CUDA_KERNELS");
    std::istringstream paths(libraries ? libraries : "");
    for (std::string path; std::getline(paths, path, ':');)
        if (void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL))
            if (void* found = dlsym(library, ("glam_host_" + name).c_str())) return reinterpret_cast<HostKernel>(found);
    return nullptr;
}

Status cuModuleGetFunction(void** handle, void* module_handle, const char* name) {
    ENTER(CURRENT);
    if (!handles.count(module_handle)) return INVALID_HANDLE;
    auto* module = static_cast<Module*>(module_handle);
    const auto found = module->cubin.kernels.find(name);
    if (found == module->cubin.kernels.end()) return NOT_FOUND;
    const HostKernel run = host_kernel(name);
    if (!run) return complain(NOT_FOUND, std::string("GLAM_FAKE_CUDA_KERNELS has no glam_host_") + name);
    *handle = made(new Kernel{module, name, found->second, run});
    return SUCCESS;
}

Status cuLibraryGetKernel(void** handle, void* library, const char* name) {
    return cuModuleGetFunction(handle, library, name);
}

Status cuFuncLoad(void* handle) {
    ENTER(CURRENT);
    return handles.count(handle) ? SUCCESS : INVALID_HANDLE;
}

Status cuFuncGetParamInfo(void* handle, size_t index, size_t* offset, size_t* size) {
    ENTER(CURRENT);
    if (!handles.count(handle)) return INVALID_HANDLE;
    const auto& parameters = static_cast<Kernel*>(handle)->parameters;
    if (index >= parameters.size()) return INVALID_VALUE;
    if (offset) *offset = parameters[index].offset;
    if (size) *size = parameters[index].size;
    return SUCCESS;
}

Status cuKernelGetParamInfo(void* handle, size_t index, size_t* offset, size_t* size) {
    return cuFuncGetParamInfo(handle, index, offset, size);
}

// A kernel that reads or writes where nothing is falls on a guard page: caught here, as a GPU's memory unit would.
thread_local sigjmp_buf* landing = nullptr;
struct sigaction before_us;

void fall(int signal, siginfo_t*, void*) {
    if (landing) siglongjmp(*landing, 1);
    sigaction(SIGSEGV, &before_us, nullptr);
    raise(signal);
}

Status guarded(const Kernel& kernel, const unsigned grid[3], const unsigned block[3], void** arguments) {
    struct sigaction ours = {};
    ours.sa_sigaction = fall;
    ours.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGSEGV, &ours, &before_us);
    sigjmp_buf here;
    landing = &here;
    const bool fell = sigsetjmp(here, 1);
    if (!fell) kernel.run(grid, block, arguments);
    landing = nullptr;
    sigaction(SIGSEGV, &before_us, nullptr);
    return fell ? complain(ILLEGAL_ADDRESS, kernel.name + " used an address where nothing is") : SUCCESS;
}

struct Launch {
    Kernel* kernel;
    unsigned grid[3], block[3];
    int device;
    std::vector<std::vector<char>> values;

    Status run() const {
        for (const Allocation* each : memory())
            if (each->type == DEVICE && each->device != device)
                return complain(ILLEGAL_ADDRESS, kernel->name + " used memory of another device");
        if (!handles.count(kernel) || !handles.count(kernel->module))
            return complain(ILLEGAL_ADDRESS, "a kernel was launched whose module is unloaded");
        std::vector<void*> arguments;
        for (const auto& value : values) arguments.push_back(const_cast<char*>(value.data()));
        return guarded(*kernel, grid, block, arguments.data());
    }

    // Of every argument that could be an address.
    std::vector<const Allocation*> memory() const {
        std::vector<const Allocation*> found;
        for (const auto& value : values) {
            Address address;
            if (value.size() != sizeof address) continue;
            std::memcpy(&address, value.data(), sizeof address);
            if (const Allocation* allocation = machine.memory.find(address)) found.push_back(allocation);
        }
        return found;
    }

    std::vector<unsigned> touches() const {
        std::vector<unsigned> found;
        for (const Allocation* each : memory()) found.push_back(each->serial);
        return found;
    }
};

// "A kernel launch will fail if it is issued to a stream that is not associated to the current device" (CUDA C++
// Programming Guide, "Stream and Event Behavior"); a module belongs to the context into which it was loaded.
Status launchable(void* stream_handle, int kernel_device) {
    const Stream* stream = stream_of(stream_handle);
    if (!stream) return INVALID_HANDLE;
    if (device_of(stream->context) != current_device())
        return complain(INVALID_HANDLE, "a kernel was launched in a stream of a device that is not current");
    if (kernel_device != current_device())
        return complain(INVALID_HANDLE, "a kernel was launched on another device than that of its module");
    return SUCCESS;
}

Status launch(void* handle, const unsigned grid[3], const unsigned block[3], void* stream, void** arguments) {
    if (!handles.count(handle)) return INVALID_HANDLE;
    auto* kernel = static_cast<Kernel*>(handle);
    if (const Status status = launchable(stream, kernel->module->device)) return status;
    const auto blocks = [&](int axis) { return grid[axis] >= 1 && (axis == 0 || grid[axis] <= 65535); };
    const unsigned long long threads = 1ull * block[0] * block[1] * block[2];
    if (!blocks(0) || !blocks(1) || !blocks(2) || threads < 1 || threads > 1024 || block[2] > 64) return INVALID_VALUE;
    auto work = std::make_shared<Launch>(Launch{kernel, {grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, current_device(), {}});
    for (size_t i = 0; i < kernel->parameters.size(); ++i) {
        const char* value = static_cast<const char*>(arguments[i]);
        work->values.emplace_back(value, value + kernel->parameters[i].size);
    }
    return enqueue(stream, {kernel->name, [work] { return work->run(); }, work->touches()});
}

Status cuLaunchKernel(void* kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                      unsigned, void* stream, void** arguments, void**) {
    ENTER(CURRENT);
    const unsigned grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
    return launch(kernel, grid, block, stream, arguments);
}

struct LaunchConfig {
    unsigned grid[3], block[3], shared_bytes;
    void* stream;
};

Status cuLaunchKernelEx(const LaunchConfig* config, void* kernel, void** arguments, void**) {
    ENTER(CURRENT);
    return launch(kernel, config->grid, config->block, config->stream, arguments);
}
