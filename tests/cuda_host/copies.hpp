// Asynchronous copies of one thread, done when a wait demands it and no sooner.

#pragma once

namespace emulated {

[[noreturn]] inline void fail(const char* what) {
    std::fprintf(stderr, "cuda_host: %s\n", what);
    std::abort();
}

struct Copy {
    void* to;
    const void* from;
    std::size_t bytes;
};

struct Copies {
    std::vector<Copy> open;  // since the last commit
    std::deque<std::vector<Copy>> groups;

    // Which of two copies to one place comes last is not defined as long as neither has been waited for.
    void start(const Copy& copy) {
        const auto meets = [&](const Copy& other) { return other.to == copy.to; };
        bool meet = std::any_of(open.begin(), open.end(), meets);
        for (const auto& group : groups) meet |= std::any_of(group.begin(), group.end(), meets);
        if (meet) fail("a copy to a place that another copy is on its way to");
        open.push_back(copy);
    }

    void commit() {
        groups.push_back(std::move(open));
        open.clear();
    }

    void wait(std::size_t pending) {
        for (; groups.size() > pending; groups.pop_front()) {
            for (const Copy& copy : groups.front()) std::memcpy(copy.to, copy.from, copy.bytes);
        }
    }
};

// Shared memory begins as garbage, and its end is that of an allocation, so that sanitizers see what lies beyond.
struct Shared {
    std::vector<unsigned char> bytes;

    explicit Shared(std::size_t size) : bytes(size, 0xa5) {}
};

}  // namespace emulated
