// A few threads that do the same on parts of a range, in a fixed order; they wait between two calls.

#pragma once
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace sapis {

class Team {
    const int n;
    std::vector<std::thread> others;
    std::mutex lock;
    std::condition_variable begin, end;
    std::function<void(int)> task;
    std::exception_ptr failure;
    int64_t round = 0;
    int busy = 0;
    bool over = false;

    void guarded(int thread) {
        try {
            task(thread);
        } catch (...) {
            std::lock_guard<std::mutex> guard(lock);
            failure = std::current_exception();
        }
    }

    void serve(int thread) {
        for (int64_t seen = 0;;) {
            {
                std::unique_lock<std::mutex> guard(lock);
                begin.wait(guard, [&] { return over || round != seen; });
                if (over) return;
                seen = round;
            }
            guarded(thread);
            std::lock_guard<std::mutex> guard(lock);
            if (--busy == 0) end.notify_one();
        }
    }

    void run(std::function<void(int)> work) {
        if (n == 1) return work(0);
        {
            std::lock_guard<std::mutex> guard(lock);
            task = std::move(work), failure = nullptr, busy = n - 1, round++;
        }
        begin.notify_all();
        guarded(0);
        std::unique_lock<std::mutex> guard(lock);
        end.wait(guard, [&] { return busy == 0; });
        if (failure) std::rethrow_exception(failure);
    }

public:
    explicit Team(int n_threads) : n(n_threads) {
        for (int thread = 1; thread < n; thread++) others.emplace_back([this, thread] { serve(thread); });
    }
    ~Team() {
        {
            std::lock_guard<std::mutex> guard(lock);
            over = true;
        }
        begin.notify_all();
        for (auto& other : others) other.join();
    }

    // f(from, to) of a part of 0 ... count for every thread.
    template <class F> void ranges(int64_t count, F&& f) {
        run([&](int thread) { f(count * thread / n, count * (thread + 1) / n); });
    }
    // f(k, thread) for every k of 0 ... count.
    template <class F> void each(int64_t count, F&& f) {
        run([&](int thread) {
            for (int64_t k = count * thread / n; k < count * (thread + 1) / n; k++) f(k, thread);
        });
    }
};

}  // namespace sapis
