// Memory, copies and fills.
#pragma once

#include "state.h"

Status cuMemGetInfo(size_t* free, size_t* total) {
    ENTER(CURRENT);
    *free = DEVICE_BYTES - machine.memory.used(current_device());
    *total = DEVICE_BYTES;
    return SUCCESS;
}

Status cuMemAlloc(Address* address, size_t bytes) {
    ENTER(SAFE);
    return machine.memory.allocate(bytes, DEVICE, contexts.back(), current_device(), address);
}

Status cuMemHostAlloc(void** address, size_t bytes, unsigned) {
    ENTER(SAFE);
    return machine.memory.allocate(bytes, HOST, contexts.back(), current_device(), reinterpret_cast<Address*>(address));
}

Status cuMemAllocHost(void** address, size_t bytes) { return cuMemHostAlloc(address, bytes, 0); }

Status release(Address address, MemoryType type) {
    const Allocation* found = machine.memory.find(address);
    if (found && machine.pending_on(found->serial))
        return complain(INVALID_VALUE, "memory was freed while work that is not done yet uses it");
    if (found && type == DEVICE && found->device != current_device())  // stricter than a driver with unified addresses
        return complain(INVALID_VALUE, "memory was freed while another device was current");
    return machine.memory.free(address, type);
}

Status cuMemFree(Address address) {
    ENTER(SAFE);
    return release(address, DEVICE);
}

Status cuMemFreeHost(void* address) {
    ENTER(SAFE);
    return release(reinterpret_cast<Address>(address), HOST);
}

Status fact(int attribute, const Allocation* found, void* data) {
    switch (attribute) {
        case POINTER_CONTEXT: return *static_cast<void**>(data) = found ? found->context : nullptr, SUCCESS;
        case MEMORY_TYPE: return *static_cast<unsigned*>(data) = found ? unsigned(found->type) : 0, SUCCESS;
        case DEVICE_POINTER: return *static_cast<Address*>(data) = found ? found->address : 0, SUCCESS;
        case HOST_POINTER: return *static_cast<Address*>(data) = found && found->type == HOST ? found->address : 0, SUCCESS;
        case IS_MANAGED: return *static_cast<bool*>(data) = false, SUCCESS;
        case DEVICE_ORDINAL: return *static_cast<int*>(data) = found ? found->device : -2, SUCCESS;
        default: return NOT_SUPPORTED;
    }
}

Status cuPointerGetAttribute(void* data, int attribute, Address address) {
    ENTER(INIT);
    const Allocation* found = machine.memory.find(address);
    return found ? fact(attribute, found, data) : INVALID_VALUE;
}

Status cuPointerGetAttributes(unsigned count, int* attributes, void** data, Address address) {
    ENTER(INIT);
    for (unsigned i = 0; i < count; ++i)
        if (const Status status = fact(attributes[i], machine.memory.find(address), data[i])) return status;
    return SUCCESS;
}

// Memory of the stream's device. A driver with unified addresses can copy between devices; glam_deploy never wants to.
const Allocation* device_bytes(Address address, size_t bytes, void* handle) {
    const Allocation* found = machine.memory.holding(address, bytes, DEVICE);
    const Stream* stream = stream_of(handle);
    return found && stream && found->device != device_of(stream->context) ? nullptr : found;
}

Memcpy3D::End end_of(const void* place) {
    const Address address = reinterpret_cast<Address>(place);
    const Allocation* found = machine.memory.find(address);
    if (found && found->type == DEVICE) return {0, 0, 0, 0, DEVICE, nullptr, address, nullptr, nullptr, 0, 0};
    return {0, 0, 0, 0, HOST, place, 0, nullptr, nullptr, 0, 0};
}

Status copy(void* stream, const char* name, void* to, const void* from, size_t bytes, std::vector<unsigned> touches) {
    const auto run = [=] { return std::memmove(to, from, bytes), SUCCESS; };
    const Memcpy3D ends = {end_of(from), end_of(to), bytes, 1, 1};
    return enqueue(stream, {name, run, std::move(touches), MEMCPY_NODE, ends});
}

template <class Pointer>
void* pointer(Pointer address) {
    return reinterpret_cast<void*>(address);
}

Status cuMemcpyHtoDAsync(Address to, const void* from, size_t bytes, void* handle) {
    ENTER(CURRENT);
    const Address host = reinterpret_cast<Address>(from);
    const Allocation *target = device_bytes(to, bytes, handle), *pinned = machine.memory.holding(host, bytes, HOST);
    if (!target) return complain(INVALID_VALUE, "a copy to the device ends outside of the device's memory");
    if (pinned) return copy(handle, "copy in", pointer(to), from, bytes, {target->serial, pinned->serial});
    if (machine.memory.find(host)) return complain(INVALID_VALUE, "a copy to the device begins outside of host memory");
    // A graph records it, as an H200 with driver 580.159 did: a node that reads the memory when it is launched.
    if (Stream* stream = stream_of(handle); stream && stream->capture)
        return copy(handle, "copy in", pointer(to), from, bytes, {target->serial});
    const auto staged = std::make_shared<std::string>(static_cast<const char*>(from), bytes);
    const auto run = [=] { return std::memcpy(pointer(to), staged->data(), bytes), SUCCESS; };
    return enqueue(handle, {"copy in", run, {target->serial}});
}

Status cuMemcpyDtoHAsync(void* to, Address from, size_t bytes, void* handle) {
    ENTER(CURRENT);
    const Address host = reinterpret_cast<Address>(to);
    const Allocation *source = device_bytes(from, bytes, handle), *pinned = machine.memory.holding(host, bytes, HOST);
    if (!source) return complain(INVALID_VALUE, "a copy from the device begins outside of the device's memory");
    if (pinned) return copy(handle, "copy out", to, pointer(from), bytes, {source->serial, pinned->serial});
    if (machine.memory.find(host)) return complain(INVALID_VALUE, "a copy from the device ends outside of host memory");
    Stream* stream = stream_of(handle);
    if (stream && stream->capture)  // not tried on a GPU: refused until somebody has
        return complain(machine.invalidate(*stream, CAPTURE_UNSUPPORTED), "memory that is not pinned in a graph");
    if (const Status status = copy(handle, "copy out", to, pointer(from), bytes, {source->serial})) return status;
    return machine.drain(*stream);  // the driver waits, for nobody else knows when such memory may go
}

Status cuMemcpyDtoDAsync(Address to, Address from, size_t bytes, void* handle) {
    ENTER(CURRENT);
    const Allocation *target = device_bytes(to, bytes, handle), *source = device_bytes(from, bytes, handle);
    if (!target || !source) return complain(INVALID_VALUE, "a copy within the device goes outside of the device's memory");
    return copy(handle, "copy", pointer(to), pointer(from), bytes, {target->serial, source->serial});
}

// The driver finds out which memory each address is of.
Status cuMemcpyAsync(Address to, Address from, size_t bytes, void* handle) {
    ENTER(CURRENT);
    const Allocation *target = machine.memory.find(to), *source = machine.memory.find(from);
    if (!target || !source) return complain(INVALID_VALUE, "a copy with an address that no allocation has");
    const auto unified = [](Address place) { return Memcpy3D::End{0, 0, 0, 0, UNIFIED, nullptr, place, nullptr, nullptr, 0, 0}; };
    const auto run = [=] { return std::memmove(pointer(to), pointer(from), bytes), SUCCESS; };
    const Memcpy3D ends = {unified(from), unified(to), bytes, 1, 1};
    return enqueue(handle, {"copy", run, {target->serial, source->serial}, MEMCPY_NODE, ends});
}

Status cuMemsetD8Async(Address to, unsigned char byte, size_t bytes, void* handle) {
    ENTER(CURRENT);
    const Allocation* target = device_bytes(to, bytes, handle);
    if (!target) return complain(INVALID_VALUE, "a fill goes outside of the device's memory");
    const auto run = [=] { return std::memset(pointer(to), byte, bytes), SUCCESS; };
    return enqueue(handle, {"fill", run, {target->serial}, MEMSET_NODE});
}
