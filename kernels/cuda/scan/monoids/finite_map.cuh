// Members of a finite set.

#pragma once

#include "scan/maps.cuh"

namespace recsolve {

// i -> f[i] on 0, ..., N - 1 for N <= 32. Composed: the images of all states, some bits each, in a (registers have no
// index); the value b where constant. A cut step acts on the initial state.
template <int N> struct FiniteMap {
    using Number = int;
    static constexpr int BITS = N <= 16 ? 4 : 5, EACH = 32 / BITS, WORDS = (N + EACH - 1) / EACH;
    static constexpr int parts = 1, entries = 0, vectors = N, size = WORDS + 2;

    int a[WORDS], b[1];
    bool constant;

    __device__ static int pick(const int* f, int i) {
        int image = f[0];
#pragma unroll
        for (int c = 1; c < N; ++c) image = i == c ? f[c] : image;
        return image;
    }

    __device__ static int look_up(const int* words, int i) {
        const int at = WORDS == 1 ? 0 : i / EACH;
        int word = words[0];
#pragma unroll
        for (int w = 1; w < WORDS; ++w) word = at == w ? words[w] : word;
        return static_cast<unsigned int>(word) >> (i - at * EACH) * BITS & ((1 << BITS) - 1);
    }

    // words <- image(0), image(1), ...
    template <class Image> __device__ static void pack(int* words, Image image) {
#pragma unroll
        for (int w = 0; w < WORDS; ++w) {
            unsigned int word = 0;
#pragma unroll
            for (int i = w * EACH; i < N && i < (w + 1) * EACH; ++i) {
                word |= (static_cast<unsigned int>(image(i)) & ((1 << BITS) - 1)) << (i - w * EACH) * BITS;
            }
            words[w] = static_cast<int>(word);
        }
    }

    __device__ static void step(const int*, const int* f, bool cut, const int* initial, int* x) {
        x[0] = pick(f, cut ? initial[0] : x[0]);
    }

    __device__ void identity() {
        pack(a, [](int i) { return i; });
        b[0] = 0, constant = false;
    }

    __device__ void begin(const int*, const int* f, bool cut, const int* initial) {
        pack(a, [=](int i) { return f[i]; });
        b[0] = pick(f, initial[0]), constant = cut;
    }

    __device__ void then(const int*, const int* f, bool cut, const int* initial) {
        FiniteMap later;
        later.begin(nullptr, f, cut, initial);
        later.after(*this);
        *this = later;
    }

    __device__ void after(const FiniteMap& earlier) {
        if (constant) return;
        b[0] = look_up(a, earlier.b[0]), constant = earlier.constant;
        int images[WORDS];
        pack(images, [&](int i) { return look_up(a, look_up(earlier.a, i)); });
#pragma unroll
        for (int w = 0; w < WORDS; ++w) a[w] = images[w];
    }

    __device__ void act(int* x) const { x[0] = constant ? b[0] : look_up(a, x[0]); }

    __device__ bool trusts(const int*, const int*) const { return true; }
};

template <int N> struct Planes<FiniteMap<N>> {
    static constexpr int K = 1, E = 0, COUNT = N, ARRAYS = 1;

    __device__ static constexpr int input(int) { return 0; }
    __device__ static constexpr int first(int) { return 0; }
    __device__ static constexpr int count(int) { return N; }
    __device__ static long long distance(const Problem& p, int c) { return c * p.in[0].row; }
};

}  // namespace recsolve
