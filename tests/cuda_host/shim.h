// Enough of CUDA's language for g++ to compile the kernels, and a machine that runs them on the CPU.
//
// Blocks run one after another, the threads of a block as fibers on one CPU thread: a fiber runs until it ends or waits
// for others at a barrier, a warp until all of its fibers wait for other warps. Shared memory is static, so a block
// finds in it what the block before it left there, as on a GPU. A launch runs to its end before it returns; launches of
// several CPU threads wait for each other.
#pragma once

#include <csetjmp>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __launch_bounds__(...)
#define __shared__ static

struct uint3 {
    unsigned int x, y, z;
};
struct alignas(16) float4 {
    float x, y, z, w;
};

namespace host {

inline uint3 thread, block, block_size, grid_size;
inline bool backwards = false;

// All that join wait for each other; may be used again at once.
struct Barrier {
    unsigned int members = 0, arrived = 0, round = 0;
};

struct Fiber {
    ucontext_t start;
    jmp_buf here;
    std::unique_ptr<char[]> stack;
    uint3 index;
    bool started = false, done = false;
};

constexpr size_t STACK_BYTES = 64 * 1024;

inline std::vector<std::unique_ptr<Fiber>> fibers;
inline Fiber* current;
inline jmp_buf scheduler;
inline void (*body)(void*);
inline void* body_data;
inline unsigned int progress;  // barriers passed and fibers ended

inline Barrier whole_block;
inline Barrier warps[32];
inline unsigned long long exchanged[2][1024];
inline int votes;

inline void yield() {
    if (_setjmp(current->here) == 0) _longjmp(scheduler, 1);
}

inline void wait(Barrier& barrier) {
    const unsigned int round = barrier.round;
    if (++barrier.arrived == barrier.members) {
        barrier.arrived = 0;
        ++barrier.round;
        ++progress;
    } else
        while (barrier.round == round) yield();
}

// A fiber lives for ever and takes one thread of a block after another.
inline void live() {
    for (;;) {
        body(body_data);
        current->done = true;
        ++progress;
        yield();
    }
}

inline void resume(Fiber& fiber) {
    current = &fiber;
    thread = fiber.index;
    if (_setjmp(scheduler)) return;
    if (fiber.started) _longjmp(fiber.here, 1);
    fiber.started = true;
    setcontext(&fiber.start);
}

inline void make_fibers(size_t count) {
    while (fibers.size() < count) {
        auto fiber = std::make_unique<Fiber>();
        fiber->stack.reset(new char[STACK_BYTES]);
        getcontext(&fiber->start);
        fiber->start.uc_stack.ss_sp = fiber->stack.get();
        fiber->start.uc_stack.ss_size = STACK_BYTES;
        makecontext(&fiber->start, live, 0);
        fibers.push_back(std::move(fiber));
    }
}

inline unsigned int linear() { return thread.x + block_size.x * (thread.y + block_size.y * thread.z); }

// A warp as far as it gets without the others, so that it is far ahead of them or far behind: what lacks a barrier
// shows. Returns how many of its threads have ended.
inline unsigned int run_warp(unsigned int first, unsigned int size) {
    unsigned int ended = 0;
    for (unsigned int before = progress - 1; progress != before;) {
        before = progress;
        for (unsigned int i = 0; i < size; ++i) {
            Fiber& fiber = *fibers[first + (backwards ? size - 1 - i : i)];
            if (fiber.done) continue;
            resume(fiber);
            ended += fiber.done;
        }
    }
    return ended;
}

inline void run_block(unsigned int count) {
    for (unsigned int i = 0; i < count; ++i) {
        const unsigned int x = i % block_size.x, y = i / block_size.x % block_size.y;
        fibers[i]->index = {x, y, i / (block_size.x * block_size.y)};
        fibers[i]->done = false;
    }
    const unsigned int whole = (count + 31) / 32;
    const auto size_of = [count](unsigned int warp) { return count - warp * 32 < 32 ? count - warp * 32 : 32; };
    whole_block = {count};
    for (unsigned int warp = 0; warp < whole; ++warp) warps[warp] = {size_of(warp)};
    for (unsigned int left = count; left > 0;) {
        const unsigned int before = progress;
        for (unsigned int i = 0; i < whole; ++i) {
            const unsigned int warp = backwards ? whole - 1 - i : i;
            left -= run_warp(warp * 32, size_of(warp));
        }
        if (progress == before) {
            std::fprintf(stderr, "host shim: threads of a block wait for others that never come\n");
            std::abort();
        }
    }
}

template <class... Parameters, size_t... I>
void call(void (*kernel)(Parameters...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<Parameters*>(arguments[I])...);
}

template <class... Parameters>
void launch(void (*kernel)(Parameters...), const unsigned int grid[3], const unsigned int size[3], void** arguments) {
    static std::mutex one_at_a_time;
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    auto run = [&] { call(kernel, arguments, std::index_sequence_for<Parameters...>{}); };
    body = [](void* data) { (*static_cast<decltype(run)*>(data))(); };
    body_data = &run;
    grid_size = {grid[0], grid[1], grid[2]};
    block_size = {size[0], size[1], size[2]};
    const unsigned int threads = size[0] * size[1] * size[2], blocks = grid[0] * grid[1] * grid[2];
    if (threads > 1024) std::abort();
    make_fibers(threads);
    for (unsigned int i = 0; i < blocks; ++i) {
        const unsigned int at = backwards ? blocks - 1 - i : i;
        block = {at % grid[0], at / grid[0] % grid[1], at / (grid[0] * grid[1])};
        run_block(threads);
    }
}

template <class... Parameters>
unsigned int parameters(void (*)(Parameters...), size_t* sizes) {
    const size_t all[] = {sizeof(Parameters)...};
    std::memcpy(sizes, all, sizeof all);
    return sizeof...(Parameters);
}

template <class Value>
Value exchange(Value value, unsigned int from) {
    static_assert(sizeof(Value) <= sizeof(unsigned long long));
    const unsigned int me = linear();
    Barrier& warp = warps[me / 32];
    auto& values = exchanged[warp.round % 2];  // the next exchange has the other half, so one wait is enough
    std::memcpy(&values[me], &value, sizeof value);
    wait(warp);
    std::memcpy(&value, &values[me / 32 * 32 + from], sizeof value);
    return value;
}

// Bit i is set where lane i votes for it.
inline unsigned int ballot(bool vote) {
    const unsigned int me = linear();
    Barrier& warp = warps[me / 32];
    auto& values = exchanged[warp.round % 2];
    values[me] = vote;
    wait(warp);
    unsigned int all = 0;
    for (unsigned int lane = 0; lane < warp.members; ++lane) all |= (values[me / 32 * 32 + lane] ? 1u : 0u) << lane;
    return all;
}

inline int vote(int value) {
    wait(whole_block);
    if (linear() == 0) votes = 0;
    wait(whole_block);
    votes |= value != 0;
    wait(whole_block);
    return votes;
}

}  // namespace host

#define threadIdx host::thread
#define blockIdx host::block
#define blockDim host::block_size
#define gridDim host::grid_size

using std::isfinite;
using std::isnan;

template <class Value>
Value min(Value a, Value b) { return b < a ? b : a; }
template <class Value>
Value max(Value a, Value b) { return a < b ? b : a; }

inline unsigned int __float_as_uint(float value) {
    unsigned int bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}
inline float __uint_as_float(unsigned int bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
inline int __clz(unsigned int bits) { return bits ? __builtin_clz(bits) : 32; }
inline int __ffs(unsigned int bits) { return __builtin_ffs(static_cast<int>(bits)); }
inline int __popc(unsigned int bits) { return __builtin_popcount(bits); }
inline unsigned int __funnelshift_l(unsigned int low, unsigned int high, unsigned int shift) {
    return static_cast<unsigned int>((static_cast<unsigned long long>(high) << 32 | low) << shift % 32 >> 32);
}
inline unsigned int __funnelshift_r(unsigned int low, unsigned int high, unsigned int shift) {
    return static_cast<unsigned int>((static_cast<unsigned long long>(high) << 32 | low) >> shift % 32);
}
template <class Value>
Value __ldcg(const Value* from) { return *from; }

inline void __threadfence() {}
inline void __syncwarp() { host::wait(host::warps[host::linear() / 32]); }
inline void __syncthreads() { host::wait(host::whole_block); }
inline int __syncthreads_or(int value) { return host::vote(value); }
template <class Value>
Value __shfl_xor_sync(unsigned int, Value value, int lane_mask) {
    return host::exchange(value, (host::linear() ^ lane_mask) % 32);
}
template <class Value>
Value __shfl_sync(unsigned int, Value value, int lane) { return host::exchange(value, lane); }
inline unsigned int __ballot_sync(unsigned int, bool vote) { return host::ballot(vote); }

template <class Value>
Value atomicExch(Value* at, Value value) { return std::exchange(*at, value); }
template <class Value>
Value atomicAdd(Value* at, Value value) { return std::exchange(*at, *at + value); }
template <class Value>
Value atomicMin(Value* at, Value value) { return std::exchange(*at, min(*at, value)); }
template <class Value>
Value atomicCAS(Value* at, Value expected, Value value) { return *at == expected ? std::exchange(*at, value) : *at; }
template <class Value>
Value atomicMax(Value* at, Value value) { return std::exchange(*at, max(*at, value)); }
inline unsigned int atomicOr(unsigned int* at, unsigned int value) { return std::exchange(*at, *at | value); }

#define EXPORTED extern "C" __attribute__((visibility("default")))

// How a kernel is launched, by its name: `arguments` point at the values, as for cuLaunchKernel. And how many
// parameters it has, and the bytes of each.
#define GLAM_HOST(NAME)                                                                                             \
    EXPORTED void glam_host_##NAME(const unsigned int grid[3], const unsigned int block[3], void** arguments) {     \
        host::launch(NAME, grid, block, arguments);                                                                 \
    }                                                                                                               \
    EXPORTED unsigned int glam_host_parameters_##NAME(size_t* sizes) { return host::parameters(NAME, sizes); }

// Run blocks and threads from the last to the first, so that what one leaves too late for another is seen.
EXPORTED void glam_host_backwards(int yes) { host::backwards = yes; }
