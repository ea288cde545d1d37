// What a cubin says of itself: its architecture, its kernels, the sizes of their parameters.
// Layout: ELF-64; attributes of .nv.info sections as `cuobjdump -elf` prints them.
#pragma once

#include <elf.h>

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "types.h"

struct Parameter {
    size_t offset, size;
};

struct Cubin {
    int capability = 0;  // 90 for sm_90
    std::map<std::string, std::vector<Parameter>> kernels;
};

constexpr Elf64_Half CUDA_MACHINE = 190;
constexpr unsigned char SIZED = 0x04, PARAMETER_INFO = 0x17;

// Entries are (format, attribute, 16 bits): the value, or with SIZED the size of what follows.
inline std::vector<Parameter> parameters(const unsigned char* info, size_t bytes) {
    std::vector<Parameter> found;
    for (size_t at = 0; at + 4 <= bytes;) {
        uint16_t value;
        std::memcpy(&value, info + at + 2, 2);
        if (info[at] == SIZED && info[at + 1] == PARAMETER_INFO) {
            uint16_t ordinal, offset;
            uint32_t packed;
            std::memcpy(&ordinal, info + at + 8, 2);
            std::memcpy(&offset, info + at + 10, 2);
            std::memcpy(&packed, info + at + 12, 4);
            if (found.size() <= ordinal) found.resize(ordinal + 1);
            found[ordinal] = {offset, packed >> 18};
        }
        at += 4 + (info[at] == SIZED ? value : 0);
    }
    return found;
}

inline Status read_cubin(const void* image, Cubin* cubin) {
    const auto* bytes = static_cast<const unsigned char*>(image);
    const auto* header = static_cast<const Elf64_Ehdr*>(image);
    if (!image || std::memcmp(bytes, ELFMAG, SELFMAG) != 0 || header->e_machine != CUDA_MACHINE) return INVALID_IMAGE;
    cubin->capability = header->e_flags >> 8 & 0xFF ? header->e_flags >> 8 & 0xFF : header->e_flags & 0xFF;
    const auto* sections = reinterpret_cast<const Elf64_Shdr*>(bytes + header->e_shoff);
    const auto* names = reinterpret_cast<const char*>(bytes + sections[header->e_shstrndx].sh_offset);
    const std::string code = ".text.", info = ".nv.info.";
    for (int i = 0; i < header->e_shnum; ++i) {
        const std::string name = names + sections[i].sh_name;
        if (name.rfind(code, 0) == 0) cubin->kernels[name.substr(code.size())];
        if (name.rfind(info, 0) == 0)
            cubin->kernels[name.substr(info.size())] = parameters(bytes + sections[i].sh_offset, sections[i].sh_size);
    }
    return SUCCESS;
}
