// Buffers that outlive a step, parts of them, and scratch space of a stage.

#pragma once
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

namespace sapis {

// Large buffers are kept and used again: fresh ones would cost a page fault every 4 KiB of every step.
class Pool {
    std::mutex lock;
    std::vector<std::pair<size_t, void*>> free_;

public:
    void* take(size_t& bytes) {
        {
            std::lock_guard<std::mutex> guard(lock);
            for (size_t i = 0; i < free_.size(); i++)
                if (free_[i].first >= bytes && free_[i].first <= 2 * bytes + (1 << 20)) {
                    auto found = free_[i];
                    free_.erase(free_.begin() + i);
                    bytes = found.first;
                    return found.second;
                }
        }
        bytes = (bytes + bytes / 8 + 4095) & ~size_t(4095);  // batches of nearly the same size share a buffer
        void* p = nullptr;
        if (posix_memalign(&p, 4096, bytes)) throw std::bad_alloc();
        return p;
    }
    void give(void* p, size_t bytes) {
        std::lock_guard<std::mutex> guard(lock);
        free_.emplace_back(bytes, p);
        if (free_.size() > 6) {
            std::free(free_.front().second);
            free_.erase(free_.begin());
        }
    }
};
static Pool pool;

// Hands out aligned parts of one buffer; a first round without a buffer only measures.
struct Arena {
    char* base = nullptr;
    size_t used = 0, size = 0;
    template <class T> T* get(int64_t n) {
        size_t at = used;
        // a spare line: rows may be read past their end by one register
        used += (size_t(n) * sizeof(T) + 127) & ~size_t(63);
        return base ? reinterpret_cast<T*>(base + at) : nullptr;
    }
    void allocate() {
        size = used;
        base = static_cast<char*>(pool.take(size));
        used = 0;
    }
    ~Arena() {
        if (base) pool.give(base, size);
    }
};

// Buffers that live for one stage; one set a thread.
template <class T> inline std::vector<T>& scratch(int which, int64_t n) {
    static thread_local std::vector<T> buffers[8];  // which: 0 to 7
    if (int64_t(buffers[which].size()) < n + 64) buffers[which].resize(n + 64);
    return buffers[which];
}

}  // namespace sapis
