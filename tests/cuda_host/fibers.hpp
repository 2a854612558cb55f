// The threads of a block as fibers of one OS thread.

#pragma once

#include <csetjmp>
#include <ucontext.h>

#include "copies.hpp"

namespace emulated {

constexpr int WARP = 32;
constexpr std::size_t STACK = 64 * 1024;

enum class Waits { NOT, FOR_WARP, FOR_BLOCK, FOREVER };

struct Fiber {
    ucontext_t context;
    std::jmp_buf where;
    bool started = false;
    Waits waits = Waits::NOT;
    Copies copies;
    std::unique_ptr<unsigned char[]> stack{new unsigned char[STACK]};
};

struct Block {
    std::vector<Fiber> fibers;
    Shared shared;
    std::vector<unsigned char> exchanged;  // eight bytes of each thread
    std::atomic<int> vote{0};
    std::jmp_buf scheduler;
    long long index = 0;
    int running = 0;
    const std::function<void()>* kernel = nullptr;

    Block(int threads, std::size_t bytes) : fibers(threads), shared(bytes), exchanged(8 * threads) {}
};

inline thread_local Block* current = nullptr;

inline int thread() {
    return current->running;
}
inline long long block() {
    return current->index;
}
inline int threads() {
    return static_cast<int>(current->fibers.size());
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
    return current->fibers[current->running].copies;
}

// Contexts only start fibers; from then on jumps switch between them, which need no system call.
inline void yield(Waits waits) {
    Fiber& fiber = current->fibers[current->running];
    fiber.waits = waits;
    if (_setjmp(fiber.where) == 0) _longjmp(current->scheduler, 1);
}

inline void block_barrier() {
    yield(Waits::FOR_BLOCK);
}
inline void warp_barrier() {
    yield(Waits::FOR_WARP);
}

// Lets the other threads of the block, and other blocks, go on.
inline void pause() {
    std::this_thread::yield();
    yield(Waits::NOT);
}

inline void body() {
    (*current->kernel)();
    yield(Waits::FOREVER);
}

inline void resume(Block& block, int thread) {
    Fiber& fiber = block.fibers[thread];
    block.running = thread;
    if (_setjmp(block.scheduler) != 0) return;
    if (fiber.started) _longjmp(fiber.where, 1);
    fiber.started = true;
    setcontext(&fiber.context);
}

// Lets threads [first, last) go on if all of them that still run wait for this.
inline bool release(Block& block, int first, int last, Waits waits) {
    bool any = false;
    for (int i = first; i < last; ++i) {
        Waits seen = block.fibers[i].waits;
        if (seen != waits && seen != Waits::FOREVER) return false;
        any |= seen == waits;
    }
    for (int i = first; i < last; ++i) {
        if (block.fibers[i].waits == waits) block.fibers[i].waits = Waits::NOT;
    }
    return any;
}

inline void run_block(Block& block) {
    const int n = static_cast<int>(block.fibers.size());
    for (unsigned int round = static_cast<unsigned int>(block.index);; ++round) {
        for (int i = 0; i < n; ++i) {  // forwards, backwards, and from the middle
            int thread = (round % 3 == 0 ? i : round % 3 == 1 ? n - 1 - i : i + n / 2) % n;
            if (block.fibers[thread].waits == Waits::NOT) resume(block, thread);
        }
        bool released = release(block, 0, n, Waits::FOR_BLOCK);
        for (const Fiber& fiber : block.fibers) released |= fiber.waits == Waits::NOT;  // has paused
        for (int i = 0; i < n; i += WARP) released |= release(block, i, std::min(i + WARP, n), Waits::FOR_WARP);
        if (released) continue;
        for (const Fiber& fiber : block.fibers) {
            if (fiber.waits != Waits::FOREVER) fail("threads of a block wait at different barriers");
        }
        return;
    }
}

// Runs a kernel; `workers` blocks at a time.
inline void launch(long long blocks, int threads, std::size_t bytes, int workers, const std::function<void()>& kernel) {
    std::atomic<long long> next{0};
    auto work = [&] {
        Block block(threads, bytes);
        block.kernel = &kernel;
        current = &block;
        while ((block.index = next++) < blocks) {
            std::fill(block.shared.bytes.begin(), block.shared.bytes.end(), static_cast<unsigned char>(0xa5));
            for (Fiber& fiber : block.fibers) {
                fiber.started = false;
                fiber.waits = Waits::NOT;
                fiber.copies = Copies();
                getcontext(&fiber.context);
                fiber.context.uc_stack.ss_sp = fiber.stack.get();
                fiber.context.uc_stack.ss_size = STACK;
                fiber.context.uc_link = nullptr;
                makecontext(&fiber.context, body, 0);
            }
            run_block(block);
        }
        current = nullptr;
    };
    std::vector<std::thread> pool;
    for (int i = 0; i < std::min<long long>(workers, blocks); ++i) pool.emplace_back(work);
    for (std::thread& worker : pool) worker.join();
}

}  // namespace emulated
