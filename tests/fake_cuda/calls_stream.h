// Streams, events and graphs.
#pragma once

#include "state.h"

Status cuStreamCreateWithPriority(void** handle, unsigned flags, int) {
    ENTER(CURRENT);
    auto* stream = made(new Stream{!(flags & NON_BLOCKING), contexts.back(), {}, {}});
    machine.streams.insert(stream);
    *handle = stream;
    return SUCCESS;
}

Status cuStreamCreate(void** handle, unsigned flags) { return cuStreamCreateWithPriority(handle, flags, 0); }

Status cuStreamDestroy(void* handle) {
    ENTER(CURRENT);
    Stream* stream = stream_of(handle);
    if (!stream || is_default(stream)) return INVALID_HANDLE;
    const Status status = machine.drain(*stream);
    machine.streams.erase(stream);
    destroy(stream);
    return status;
}

Status cuStreamGetCtx(void* handle, void** context) {
    ENTER(CURRENT);
    Stream* stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    *context = is_default(stream) ? contexts.back() : stream->context;
    return SUCCESS;
}

Status cuStreamGetPriority(void*, int* priority) {
    ENTER(CURRENT);
    *priority = 0;
    return SUCCESS;
}

Status cuStreamGetFlags(void* handle, unsigned* flags) {
    ENTER(CURRENT);
    Stream* stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    *flags = stream->blocking ? 0 : NON_BLOCKING;
    return SUCCESS;
}

Status cuCtxGetStreamPriorityRange(int* least, int* greatest) {
    ENTER(CURRENT);
    *least = *greatest = 0;
    return SUCCESS;
}

// Waiting for a stream that records breaks the recording.
Status waitable(void* handle) {
    Stream* stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    return stream->capture ? machine.invalidate(*stream, CAPTURE_UNSUPPORTED) : SUCCESS;
}

Status cuStreamSynchronize(void* handle) {
    ENTER(CURRENT);
    if (const Status status = waitable(handle)) return status;
    if (const Status status = machine.safe(thread_mode)) return status;
    return machine.drain(*stream_of(handle));
}

// Who only asks, again and again, sees the work go on.
Status cuStreamQuery(void* handle) {
    ENTER(CURRENT);
    if (const Status status = waitable(handle)) return status;
    if (const Status status = machine.safe(thread_mode)) return status;
    Stream& stream = *stream_of(handle);
    if (stream.pending.empty()) return SUCCESS;
    const Status status = machine.step(stream);
    return status ? status : NOT_READY;
}

Status cuStreamWaitEvent(void* handle, void* event, unsigned) {
    ENTER(CURRENT);
    Stream* stream = stream_of(handle);
    if (!stream || !handles.count(event)) return INVALID_HANDLE;
    return machine.wait_event(*stream, *static_cast<Event*>(event));
}

Status cuEventCreate(void** handle, unsigned flags) {
    ENTER(CURRENT);
    *handle = made(new Event{!(flags & DISABLE_TIMING), current_device(), {}, {}});
    return SUCCESS;
}

Status cuEventDestroy(void* handle) {
    ENTER(CURRENT);
    return destroy(static_cast<Event*>(handle));
}

Status cuEventRecord(void* handle, void* stream_handle) {
    ENTER(CURRENT);
    Stream* stream = stream_of(stream_handle);
    if (!stream || !handles.count(handle)) return INVALID_HANDLE;
    Event& event = *static_cast<Event*>(handle);  // of the stream's device: Programming Guide, as for kernels
    if (event.device != device_of(stream->context)) return complain(INVALID_HANDLE, "an event of another device");
    return machine.record_event(*stream, event);
}

Status cuEventSynchronize(void* handle) {
    ENTER(SAFE);
    if (!handles.count(handle)) return INVALID_HANDLE;
    const Event& event = *static_cast<Event*>(handle);
    if (event.capture) return CAPTURED_EVENT;
    return event.mark ? machine.reach(event.mark) : SUCCESS;
}

Status cuEventQuery(void* handle) {
    ENTER(SAFE);
    if (!handles.count(handle)) return INVALID_HANDLE;
    const Event& event = *static_cast<Event*>(handle);
    if (event.capture) return CAPTURED_EVENT;
    if (!event.mark || event.mark->done) return SUCCESS;
    const Status status = machine.step(*event.mark->stream);
    return status ? status : NOT_READY;
}

Status cuEventElapsedTime(float* milliseconds, void* start, void* end) {
    ENTER(CURRENT);
    if (!handles.count(start) || !handles.count(end)) return INVALID_HANDLE;
    const Event &from = *static_cast<Event*>(start), &to = *static_cast<Event*>(end);
    if (!from.timing || !to.timing || !from.mark || !to.mark || from.device != to.device) return INVALID_HANDLE;
    if (!from.mark->done || !to.mark->done) return NOT_READY;
    *milliseconds = static_cast<float>(to.mark->milliseconds - from.mark->milliseconds);
    return SUCCESS;
}

Status cuLaunchHostFunc(void* handle, Function function, void* data) {
    ENTER(CURRENT);
    return enqueue(handle, {"host function", [=] { return function(data), SUCCESS; }, {}, HOST_NODE});
}

Status cuStreamBeginCapture(void* handle, int mode) {
    ENTER(CURRENT);
    Stream* stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    if (is_legacy(stream)) return CAPTURE_UNSUPPORTED;
    return machine.begin(*stream, static_cast<CaptureMode>(mode));
}

Status cuStreamEndCapture(void* handle, Graph** graph) {
    ENTER(CURRENT);
    Stream* stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    const Status status = machine.end(*stream, graph);
    if (*graph) made(*graph);
    return status;
}

Status cuStreamIsCapturing(void* handle, int* status) {
    ENTER(CURRENT);
    Stream* stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    *status = !stream->capture ? NOT_CAPTURING : stream->capture->invalid ? INVALIDATED : CAPTURING;
    return SUCCESS;
}

Status cuStreamGetCaptureInfo(void* handle, int* status, unsigned long long* id, Graph** graph, const Work*** edges,
                              const void** data, size_t* count) {
    if (const Status failed = cuStreamIsCapturing(handle, status)) return failed;
    Stream* stream = stream_of(handle);
    if (id) *id = reinterpret_cast<size_t>(stream->capture.get());
    if (graph) *graph = stream->capture ? &stream->capture->graph : nullptr;
    if (edges) *edges = nullptr;
    if (data) *data = nullptr;
    if (count) *count = 0;
    return SUCCESS;
}

Status cuGraphGetNodes(const Graph* graph, const Work** nodes, size_t* count) {
    ENTER(CURRENT);
    if (nodes)
        for (size_t i = 0; i < *count; ++i) nodes[i] = i < graph->nodes.size() ? &graph->nodes[i] : nullptr;
    *count = graph->nodes.size();
    return SUCCESS;
}

Status cuGraphNodeGetType(const Work* node, int* type) {
    ENTER(CURRENT);
    *type = node->type;
    return SUCCESS;
}

Status cuGraphMemcpyNodeGetParams(const Work* node, Memcpy3D* ends) {
    ENTER(CURRENT);
    if (node->type != MEMCPY_NODE) return INVALID_VALUE;
    *ends = node->ends;
    return SUCCESS;
}

Status cuThreadExchangeStreamCaptureMode(int* mode) {
    ENTER(INIT);
    const CaptureMode before = thread_mode;
    thread_mode = static_cast<CaptureMode>(*mode);
    *mode = before;
    return SUCCESS;
}

Status cuGraphInstantiateWithFlags(Graph** executable, Graph* graph, unsigned long long) {
    ENTER(CURRENT);
    if (!handles.count(graph)) return INVALID_HANDLE;
    *executable = made(new Graph(*graph));
    return SUCCESS;
}

Status cuGraphInstantiate(Graph** executable, Graph* graph, unsigned long long flags) {
    return cuGraphInstantiateWithFlags(executable, graph, flags);
}

Status cuGraphLaunch(Graph* executable, void* stream) {
    ENTER(CURRENT);
    if (!handles.count(executable)) return INVALID_HANDLE;
    for (const Work& node : executable->nodes)
        if (const Status status = enqueue(stream, node)) return status;
    return SUCCESS;
}

Status cuGraphExecDestroy(Graph* executable) {
    ENTER(CURRENT);
    return destroy(executable);
}

Status cuGraphDestroy(Graph* graph) {
    ENTER(CURRENT);
    return destroy(graph);
}
