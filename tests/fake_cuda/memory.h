// Device memory and pinned memory, both of this process, each allocation between pages that nobody may touch.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "types.h"

constexpr size_t PAGE = 4096, ALIGNMENT = 512, DEVICE_BYTES = size_t(4) << 30;
constexpr unsigned char GARBAGE = 0xA5, CANARY = 0x5C;

struct Allocation {
    Address address;
    size_t bytes;
    MemoryType type;
    void* context;
    int device;
    unsigned serial;  // no two allocations of a process share it
};

inline size_t rounded(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

// Addresses are never used again: what is freed stays a hole, so that late readers and writers fall into it.
class Memory {
   public:
    // `device`: of the context. A guard page follows the allocation, so that an access beyond its end is a fault; its content
    // is not initialized, as on a GPU.
    Status allocate(size_t bytes, MemoryType type, void* context, int device, Address* address) {
        const size_t body = rounded(bytes, PAGE);
        if (bytes == 0) return INVALID_VALUE;
        if (type == DEVICE && used_[device] + bytes > DEVICE_BYTES) return OUT_OF_MEMORY;
        void* base = mmap(nullptr, body + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (base == MAP_FAILED) return OUT_OF_MEMORY;
        char* inside = static_cast<char*>(base) + PAGE;
        mprotect(inside, body, PROT_READ | PROT_WRITE);
        std::memset(inside, GARBAGE, body);
        *address = reinterpret_cast<Address>(inside) + body - rounded(bytes, ALIGNMENT);
        live_[*address] = {*address, bytes, type, context, device, ++serial_};
        hang_canaries();
        used_[device] += type == DEVICE ? bytes : 0;
        return SUCCESS;
    }

    Status free(Address address, MemoryType type) {
        const auto found = live_.find(address);
        if (found == live_.end() || found->second.type != type) return INVALID_VALUE;
        const size_t body = rounded(found->second.bytes, PAGE);
        char* end = reinterpret_cast<char*>(address) + rounded(found->second.bytes, ALIGNMENT);
        madvise(end - body, body, MADV_DONTNEED);
        mprotect(end - body, body, PROT_NONE);
        used_[found->second.device] -= type == DEVICE ? found->second.bytes : 0;
        live_.erase(found);
        return SUCCESS;
    }

    const Allocation* find(Address address) const {
        auto after = live_.upper_bound(address);
        if (after == live_.begin()) return nullptr;
        const Allocation& found = (--after)->second;
        return address < found.address + found.bytes ? &found : nullptr;
    }

    // The allocation that holds all of these bytes, if it is of that type.
    const Allocation* holding(Address address, size_t bytes, MemoryType type) const {
        const Allocation* found = find(address);
        const bool whole = found && found->type == type && address + bytes <= found->address + found->bytes;
        return whole ? found : nullptr;
    }

    bool alive(unsigned serial) const {
        return std::any_of(live_.begin(), live_.end(), [=](const auto& each) { return each.second.serial == serial; });
    }

    void hang_canaries() const {
        for (const auto& [address, each] : live_)
            std::memset(reinterpret_cast<char*>(address) + each.bytes, CANARY, slack(each.bytes));
    }

    // Whether every byte between the end of an allocation and its guard is as it was.
    bool canaries_sing() const {
        return std::all_of(live_.begin(), live_.end(), [](const auto& each) {
            const auto* after = reinterpret_cast<const unsigned char*>(each.first) + each.second.bytes;
            return std::all_of(after, after + slack(each.second.bytes), [](auto byte) { return byte == CANARY; });
        });
    }

    size_t used(int device) { return used_[device]; }

    // Of every device; or of one.
    size_t count(MemoryType type, int device = -1) const {
        return std::count_if(live_.begin(), live_.end(), [=](const auto& each) {
            return each.second.type == type && (device < 0 || each.second.device == device);
        });
    }

   private:
    static size_t slack(size_t bytes) { return rounded(bytes, ALIGNMENT) - bytes; }

    std::map<Address, Allocation> live_;
    std::map<int, size_t> used_;  // by device
    unsigned serial_ = 0;
};
