// Clusters of blocks, which wait for each other and write to each other's shared memory, and sums of neighbouring threads.

#pragma once

namespace emulated {

struct Cluster {
    std::atomic<long long> arrived{0};
    std::atomic<unsigned char*> shared[16] = {};
};

// The clusters of the launch that runs.
inline std::map<long long, Cluster> clusters;
inline std::mutex known;

inline Cluster& cluster(int blocks) {
    std::lock_guard<std::mutex> lock(known);
    return clusters[block() / blocks];
}

}  // namespace emulated

namespace recsolve {

// The threads of a block meet, then the blocks: a round is over when all of them have come. They sleep until then.
template <int BLOCKS> inline void meet_cluster() {
    __syncthreads();
    if constexpr (BLOCKS > 1) {
        if (threadIdx.x == 0) {
            emulated::Cluster& own = emulated::cluster(BLOCKS);
            own.shared[emulated::block() % BLOCKS] = emulated::shared();
            const long long wanted = (own.arrived++ / BLOCKS + 1) * BLOCKS;
            own.arrived.notify_all();
            for (long long seen; (seen = own.arrived) < wanted;) own.arrived.wait(seen);
        }
        __syncthreads();
    }
}

template <int BLOCKS, class T> inline void put_in_block(T* place, int rank, T x) {
    unsigned char* there = emulated::cluster(BLOCKS).shared[rank];
    if (!there) emulated::fail("a block that may not have begun");
    *reinterpret_cast<T*>(there + (reinterpret_cast<unsigned char*>(place) - emulated::shared())) = x;
}

template <int WIDTH, class T> inline T sum_of_group(T* place, T x) {
    for (int distance = WIDTH / 2; distance > 0; distance /= 2) {
        *place = x;
        __syncwarp();
        x += place[(static_cast<int>(threadIdx.x) ^ distance) - static_cast<int>(threadIdx.x)];
        __syncwarp();
    }
    return x;
}

}  // namespace recsolve
