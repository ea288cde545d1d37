// What the driver knows, and how every call into it begins.
#pragma once

#include <array>
#include <cstdlib>
#include <mutex>

#include "work.h"

constexpr int MOST_DEVICES = 8;

struct Context {
    int device;
};

std::recursive_mutex lock;
Machine machine;
bool initialized = false;
std::array<Context, MOST_DEVICES> primaries;
std::array<Stream, MOST_DEVICES> legacy_defaults, thread_defaults;  // each context has its own
std::set<const void*> handles;                                      // of all that a caller may name
std::map<std::string, unsigned long long> counts;
thread_local std::vector<void*> contexts;
thread_local CaptureMode thread_mode = GLOBAL;

int device_count() {
    const char* devices = std::getenv("GLAM_FAKE_CUDA_DEVICES");
    return devices ? std::min(std::atoi(devices), MOST_DEVICES) : 1;
}

void set_up_devices() {
    for (int n = 0; n < device_count(); ++n) {
        primaries[n].device = n;
        handles.insert(&primaries[n]);
        for (Stream* stream : {&legacy_defaults[n], &thread_defaults[n]}) {
            stream->blocking = true;
            stream->context = &primaries[n];
            handles.insert(stream);
            machine.streams.insert(stream);
        }
    }
}

int device_of(const void* context) { return static_cast<const Context*>(context)->device; }
int current_device() { return contexts.empty() ? 0 : device_of(contexts.back()); }
bool is_legacy(const Stream* stream) { return stream == &legacy_defaults[device_of(stream->context)]; }
bool is_default(const Stream* stream) {
    return is_legacy(stream) || stream == &thread_defaults[device_of(stream->context)];
}

enum Needs { NOTHING, INIT, CURRENT, SAFE };  // each includes those before it

Status entered(const char* name, Needs needs) {
    ++counts[name];
    machine.note(name);
    if (needs >= INIT && !initialized) return NOT_INITIALIZED;
    if (needs >= CURRENT && contexts.empty()) return INVALID_CONTEXT;
    if (needs >= CURRENT && machine.broken) return machine.broken;
    return needs >= SAFE ? machine.safe(thread_mode) : SUCCESS;
}

// First line of every entry point. SAFE is for calls that may not be made while this thread records a graph.
#define ENTER(NEEDS)                                         \
    const std::lock_guard<std::recursive_mutex> guard(lock); \
    if (const Status status = entered(__func__, NEEDS)) return status

Status complain(Status status, const std::string& words) {
    std::fprintf(stderr, "fake CUDA driver: %s\n", words.c_str());
    return status;
}

template <class Thing>
Thing* made(Thing* thing) {
    handles.insert(thing);
    return thing;
}

template <class Thing>
Status destroy(Thing* thing) {
    if (!handles.erase(thing)) return INVALID_HANDLE;
    delete thing;
    return SUCCESS;
}

// The stream behind a handle, with the default streams' order kept; null for what is none.
Stream* stream_of(void* handle) {
    auto* stream = static_cast<Stream*>(handle);
    if (handle == nullptr || handle == reinterpret_cast<void*>(1)) stream = &legacy_defaults[current_device()];
    if (handle == reinterpret_cast<void*>(2)) stream = &thread_defaults[current_device()];
    return handles.count(stream) ? stream : nullptr;
}

Status enqueue(void* handle, Work work) {
    Stream* stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    const auto beside = [=](Stream* each) { return device_of(each->context) == device_of(stream->context); };
    if (is_legacy(stream))
        for (Stream* each : machine.streams)
            if (beside(each) && each->blocking && each->capture) return CAPTURE_IMPLICIT;
    for (Stream* each : machine.streams) {  // the default stream and those that block wait for each other
        const bool ordered = stream->blocking && each->blocking && each != stream && !stream->capture && !each->capture;
        if (beside(each) && ordered && (is_legacy(stream) || is_legacy(each)))
            if (const Status status = machine.drain(*each)) return status;
    }
    return machine.enqueue(*stream, std::move(work));
}
