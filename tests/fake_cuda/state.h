// What the driver knows, and how every call into it begins.
#pragma once

#include <mutex>

#include "work.h"

struct Context {};

std::recursive_mutex lock;
Machine machine;
bool initialized = false;
Context primary;
Stream legacy_default{true, &primary, {}, {}}, thread_default{true, &primary, {}, {}};
std::set<const void*> handles = {&primary, &legacy_default, &thread_default};  // of all that a caller may name
std::map<std::string, unsigned long long> counts;
thread_local std::vector<void*> contexts;
thread_local CaptureMode thread_mode = GLOBAL;

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
    if (handle == nullptr || handle == reinterpret_cast<void*>(1)) stream = &legacy_default;
    if (handle == reinterpret_cast<void*>(2)) stream = &thread_default;
    return handles.count(stream) ? stream : nullptr;
}

Status enqueue(void* handle, Work work) {
    Stream* stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    if (stream == &legacy_default)
        for (Stream* each : machine.streams)
            if (each->blocking && each->capture) return CAPTURE_IMPLICIT;
    for (Stream* each : machine.streams) {  // the default stream and those that block wait for each other
        const bool ordered = stream->blocking && each->blocking && each != stream && !stream->capture && !each->capture;
        if (ordered && (stream == &legacy_default || each == &legacy_default))
            if (const Status status = machine.drain(*each)) return status;
    }
    return machine.enqueue(*stream, std::move(work));
}
