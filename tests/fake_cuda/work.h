// Streams, events and graphs. Work is done as late as CUDA allows: only when the host waits for it, asks after it, or
// other work that is being done waits for it. So whoever forgets to wait reads what was there before.
#pragma once

#include <cstdio>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "memory.h"

struct Work {
    std::string name;
    std::function<Status()> run;
    std::vector<unsigned> touches;  // serials of the allocations that must still be there when it is done
    NodeType type = KERNEL_NODE;
    Memcpy3D ends = {};  // of a copy
};

struct Stream;

// A place in a stream, at one recording of an event.
struct Mark {
    Stream* stream;
    bool done = false;
    double milliseconds = 0;
};

struct Graph {
    std::deque<Work> nodes;  // each stays where it is: its address is its handle
};

struct Capture {
    CaptureMode mode;
    std::thread::id thread;
    Stream* origin;
    bool invalid = false;
    Graph graph;
    std::set<Stream*> unjoined;  // with work that the origin does not yet wait for
};

struct Event {
    bool timing;
    int device;
    std::shared_ptr<Mark> mark;
    std::shared_ptr<Capture> capture;  // where it was recorded last, if in one
    Stream* recorded_in = nullptr;
    size_t recorded_at = 0;
};

struct Stream {
    bool blocking;
    void* context;
    std::deque<Work> pending;
    std::shared_ptr<Capture> capture;
    size_t captured = 0;  // nodes put in while capturing
};

class Machine {
   public:
    Memory memory;
    Status broken = SUCCESS;  // a sticky error: every call returns it from then on
    bool recording = false;
    std::vector<std::string> log;

    void note(const std::string& line) {
        if (recording) log.push_back(line);
    }

    // Into the stream, or into the graph that it records.
    Status enqueue(Stream& stream, Work work) {
        if (stream.capture) return record(stream, std::move(work));
        stream.pending.push_back(std::move(work));
        return SUCCESS;
    }

    Status drain(Stream& stream) {
        while (!stream.pending.empty())
            if (const Status status = step(stream)) return status;
        return SUCCESS;
    }

    // The oldest piece of work.
    Status step(Stream& stream) {
        if (broken) return broken;
        Work work = std::move(stream.pending.front());
        stream.pending.pop_front();
        if (const Status status = perform(work)) broken = status;
        return broken;
    }

    Status perform(const Work& work) {
        clock += 0.001;
        note("> " + work.name);
        for (unsigned serial : work.touches)
            if (!memory.alive(serial)) return blame(work, "memory that was freed");
        if (const Status status = work.run()) return status;
        return memory.canaries_sing() ? SUCCESS : blame(work, "bytes behind the end of an allocation");
    }

    Status reach(const std::shared_ptr<Mark>& mark) {
        while (!mark->done)
            if (const Status status = step(*mark->stream)) return status;
        return SUCCESS;
    }

    bool pending_on(unsigned serial) const {
        for (const Stream* stream : streams)
            for (const Work& work : stream->pending)
                for (unsigned touched : work.touches)
                    if (touched == serial) return true;
        return false;
    }

    Status record_event(Stream& stream, Event& event) {
        event.recorded_in = &stream;
        event.capture = stream.capture;
        event.recorded_at = stream.captured;
        event.mark.reset();
        if (stream.capture) return stream.capture->invalid ? CAPTURE_INVALIDATED : SUCCESS;
        event.mark = std::make_shared<Mark>(Mark{&stream});
        const auto mark = event.mark;
        return enqueue(stream, {"event", [this, mark] {
                                    mark->done = true;
                                    mark->milliseconds = clock;
                                    return SUCCESS;
                                }, {}});
    }

    Status wait_event(Stream& stream, Event& event) {
        if (event.capture && !captures.count(event.capture)) return CAPTURED_EVENT;
        if (event.capture && !stream.capture) stream.capture = event.capture;
        if (stream.capture && stream.capture != event.capture) return invalidate(stream, CAPTURE_ISOLATION);
        if (stream.capture) {
            join(stream, event);
            return SUCCESS;  // nodes are replayed in the order of their recording
        }
        if (!event.mark) return SUCCESS;
        const auto mark = event.mark;
        return enqueue(stream, {"wait", [this, mark] { return reach(mark); }, {}});
    }

    Status begin(Stream& stream, CaptureMode mode) {
        if (stream.capture) return INVALID_VALUE;
        stream.capture = std::make_shared<Capture>(Capture{mode, std::this_thread::get_id(), &stream, false, {}, {}});
        captures.insert(stream.capture);
        return SUCCESS;
    }

    Status end(Stream& stream, Graph** graph) {
        *graph = nullptr;
        const auto capture = stream.capture;
        if (!capture) return INVALID_VALUE;
        if (capture->origin != &stream) return invalidate(stream, CAPTURE_UNMATCHED);
        if (capture->mode != RELAXED && capture->thread != std::this_thread::get_id()) return CAPTURE_WRONG_THREAD;
        for (Stream* each : streams)
            if (each->capture == capture) each->capture.reset();
        captures.erase(capture);
        if (capture->invalid) return CAPTURE_INVALIDATED;
        if (!capture->unjoined.empty()) return CAPTURE_UNJOINED;
        *graph = new Graph{capture->graph};
        return SUCCESS;
    }

    // Whether this thread may make calls that could disturb a recording.
    Status safe(CaptureMode thread_mode) {
        if (thread_mode == RELAXED) return SUCCESS;
        for (const auto& capture : captures) {
            const bool mine = capture->thread == std::this_thread::get_id() && capture->mode != RELAXED;
            const bool theirs = thread_mode == GLOBAL && capture->mode == GLOBAL;
            if (!mine && !theirs) continue;
            capture->invalid = true;
            return CAPTURE_UNSUPPORTED;
        }
        return SUCCESS;
    }

    Status invalidate(Stream& stream, Status status) {
        stream.capture->invalid = true;
        return status;
    }

    std::set<Stream*> streams;
    std::set<std::shared_ptr<Capture>> captures;
    double clock = 0;  // milliseconds; a piece of work takes a microsecond

   private:
    Status record(Stream& stream, Work work) {
        if (stream.capture->invalid) return CAPTURE_INVALIDATED;
        stream.capture->graph.nodes.push_back(std::move(work));
        ++stream.captured;
        if (stream.capture->origin != &stream) stream.capture->unjoined.insert(&stream);
        return SUCCESS;
    }

    // What the event stands for is from now on part of this stream's past.
    void join(Stream& stream, const Event& event) {
        const bool all = event.recorded_at == event.recorded_in->captured;
        if (all) stream.capture->unjoined.erase(event.recorded_in);
        if (stream.capture->origin != &stream) stream.capture->unjoined.insert(&stream);
    }

    Status blame(const Work& work, const char* what) {
        std::fprintf(stderr, "fake CUDA driver: %s used %s\n", work.name.c_str(), what);
        return ILLEGAL_ADDRESS;
    }
};
