// The threads of a block as OS threads, which sanitizers understand. Slow: for a few small problems.

#pragma once

#include "copies.hpp"

namespace emulated {

constexpr int WARP = 32;

struct Block {
    Shared shared;
    std::barrier<> barrier;
    std::deque<std::barrier<>> warps;
    std::vector<unsigned char> exchanged;  // eight bytes of each thread
    std::atomic<int> vote{0};
    long long index;
    int threads;

    Block(long long number, int count, std::size_t bytes)
        : shared(bytes), barrier(count), exchanged(8 * count), index(number), threads(count) {
        for (int i = 0; i < count; i += WARP) warps.emplace_back(std::min(WARP, count - i));
    }
};

inline thread_local Block* current = nullptr;
inline thread_local int own = 0;
inline thread_local Copies own_copies;

inline int thread() {
    return own;
}
inline long long block() {
    return current->index;
}
inline int threads() {
    return current->threads;
}
inline unsigned char* shared() {
    return current->shared.bytes.data();
}
inline unsigned char* exchanged() {
    return current->exchanged.data();
}
inline std::atomic<int>& vote() {
    return current->vote;
}
inline Copies& copies() {
    return own_copies;
}
inline void block_barrier() {
    current->barrier.arrive_and_wait();
}
inline void warp_barrier() {
    current->warps[own / WARP].arrive_and_wait();
}

inline void pause() {
    std::this_thread::yield();
}

inline void run_thread(Block& block, int thread, const std::function<void()>& kernel) {
    current = &block;
    own = thread;
    kernel();
    block.barrier.arrive_and_drop();
    block.warps[thread / WARP].arrive_and_drop();
}

// Runs a kernel; `workers` blocks at a time.
inline void launch(long long blocks, int threads, std::size_t bytes, int workers, const std::function<void()>& kernel) {
    std::atomic<long long> next{0};
    auto work = [&] {
        for (long long index; (index = next++) < blocks;) {
            Block block(index, threads, bytes);
            std::vector<std::thread> pool;
            for (int i = 0; i < threads; ++i) pool.emplace_back([&block, i, &kernel] { run_thread(block, i, kernel); });
            for (std::thread& thread : pool) thread.join();
        }
    };
    std::vector<std::thread> pool;
    for (int i = 0; i < std::min<long long>(workers, blocks); ++i) pool.emplace_back(work);
    for (std::thread& worker : pool) worker.join();
}

}  // namespace emulated
