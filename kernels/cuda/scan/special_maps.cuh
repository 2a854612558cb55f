// Maps on special states, in the form of maps.cuh: sums of exponentials, points of a projective line, gains of a filter,
// members of a finite set.

#pragma once

#include "scan/simple_maps.cuh"

namespace recsolve {

__device__ inline float exponential(float x) {
    return ::expf(x);
}
__device__ inline double exponential(double x) {
    return ::exp(x);
}

// (M, S) -> S e^M + s e^m in the same form. m and s are arrays of their own; a cut step gives them.
template <class T> struct LogSumExp {
    using Number = T;
    static constexpr int parts = 2, entries = 0, vectors = 1, size = 3;

    T a[1], b[2];  // a holds nothing
    bool constant;

    __device__ static void add(T m, T s, T* x) {
        const bool stays = x[0] >= m;
        const T weight = x[0] == m ? T(1) : exponential(stays ? m - x[0] : x[0] - m);  // inf - inf is NaN
        x[1] = stays ? multiply_add(s, weight, x[1]) : multiply_add(x[1], weight, s);
        x[0] = greatest(x[0], m);
    }

    __device__ static void step(const T*, const T* f, bool cut, const T*, T* x) {
        add(f[0], f[1], x);
        if (cut) x[0] = f[0], x[1] = f[1];
    }

    __device__ void identity() { b[0] = T(-1) / T(0), b[1] = T(0), constant = false; }

    __device__ void begin(const T*, const T* f, bool cut, const T*) { b[0] = f[0], b[1] = f[1], constant = cut; }

    __device__ void then(const T* e, const T* f, bool cut, const T* initial) {
        step(e, f, cut, initial, b);
        constant |= cut;
    }

    __device__ void after(const LogSumExp& earlier) {
        if (constant) return;
        T sum[2] = {earlier.b[0], earlier.b[1]};
        add(b[0], b[1], sum);
        b[0] = sum[0], b[1] = sum[1], constant = earlier.constant;
    }

    __device__ void act(T* x) const {
        add(b[0], b[1], x);
        if (constant) x[0] = b[0], x[1] = b[1];
    }

    __device__ bool trusts(const T* before, const T* after) const {
        const bool lost = is_nan(before[0]) || is_nan(before[1]);
        return (finite(after[1]) && !is_nan(after[0])) || (lost && !constant);
    }
};

template <class T> struct Planes<LogSumExp<T>> {
    static constexpr int K = 2, E = 0, COUNT = 2, ARRAYS = 2;

    __device__ static constexpr int input(int c) { return c; }
    __device__ static constexpr int first(int array) { return array; }
    __device__ static constexpr int count(int) { return 1; }
    __device__ static long long distance(const Problem&, int) { return 0; }
};

__device__ inline float scaled(float x, int exponent) {
    return ::scalbnf(x, exponent);
}
__device__ inline double scaled(double x, int exponent) {
    return ::scalbn(x, exponent);
}
__device__ inline int exponent_of(float x) {
    return ::ilogbf(x);
}
__device__ inline int exponent_of(double x) {
    return ::ilogb(x);
}

// x -> (a x + b) / (c x + d), infinity going to a / c. Composed: the matrix in a; the value b where constant. A cut step
// acts on the initial state.
template <class T> struct Moebius {
    using Number = T;
    static constexpr int parts = 1, entries = 0, vectors = 4, size = 6;

    T a[4], b[1];
    bool constant;

    __device__ static T move(const T* f, T x) {
        const bool far = !finite(x) && !is_nan(x);
        return (far ? f[0] : multiply_add(f[0], x, f[1])) / (far ? f[2] : multiply_add(f[2], x, f[3]));
    }

    // Scales a matrix that has become large or small by a power of two.
    __device__ static void normalise(T* m) {
        constexpr T LARGE = T(1 << 20);
        const T largest = greatest(greatest(size_of(m[0]), size_of(m[1])), greatest(size_of(m[2]), size_of(m[3])));
        if ((largest < LARGE && largest * LARGE > T(1)) || !finite(largest) || largest == T(0)) return;
        const int exponent = exponent_of(largest);
#pragma unroll
        for (int i = 0; i < 4; ++i) m[i] = scaled(m[i], -exponent);
    }

    __device__ static void step(const T*, const T* f, bool cut, const T* initial, T* x) {
        x[0] = move(f, cut ? initial[0] : x[0]);
    }

    __device__ void identity() { a[0] = a[3] = T(1), a[1] = a[2] = b[0] = T(0), constant = false; }

    __device__ void begin(const T*, const T* f, bool cut, const T* initial) {
#pragma unroll
        for (int i = 0; i < 4; ++i) a[i] = f[i];
        normalise(a);
        b[0] = cut ? move(f, initial[0]) : T(0), constant = cut;
    }

    __device__ void then(const T* e, const T* f, bool cut, const T* initial) {
        T left[4] = {f[0], f[1], f[2], f[3]};
        normalise(left);
        multiply(left, a);
        step(e, f, cut, initial, b);
        constant |= cut;
    }

    __device__ void after(const Moebius& earlier) {
        if (constant) return;
        b[0] = move(a, earlier.b[0]);
        T right[4] = {earlier.a[0], earlier.a[1], earlier.a[2], earlier.a[3]};
        multiply(a, right);
#pragma unroll
        for (int i = 0; i < 4; ++i) a[i] = right[i];
        constant = earlier.constant;
    }

    __device__ void act(T* x) const { x[0] = constant ? b[0] : move(a, x[0]); }

    __device__ bool trusts(const T* before, const T* after) const { return sure_of(before[0], after[0], constant); }

private:
    __device__ static T size_of(T x) { return x < T(0) ? -x : x; }

    // right <- left right.
    __device__ static void multiply(const T* left, T* right) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            const T above = right[j], below = right[2 + j];
            right[j] = multiply_add(left[0], above, left[1] * below);
            right[2 + j] = multiply_add(left[2], above, left[3] * below);
        }
        normalise(right);
    }
};

// K -> A^2 K / (1 + K B) + C, from A, C, B: the gain of a Kalman filter with one state. Composed: a = A, B and b = C,
// which a cut step gives.
template <class T> struct Riccati {
    using Number = T;
    static constexpr int parts = 1, entries = 0, vectors = 3, size = 4;

    T a[2], b[1];
    bool constant;

    __device__ static T move(T A, T C, T B, T x) {
        return multiply_add(A * (T(1) / multiply_add(x, B, T(1)) * x), A, C);
    }

    __device__ static void step(const T*, const T* f, bool cut, const T*, T* x) {
        x[0] = cut ? f[1] : move(f[0], f[1], f[2], x[0]);
    }

    __device__ void identity() { a[0] = T(1), a[1] = b[0] = T(0), constant = false; }

    __device__ void begin(const T*, const T* f, bool cut, const T*) {
        a[0] = f[0], b[0] = f[1], a[1] = f[2], constant = cut;
    }

    __device__ void then(const T*, const T* f, bool cut, const T*) {
        const Riccati earlier = *this;
        a[0] = f[0], b[0] = f[1], a[1] = f[2], constant = cut;
        after(earlier);
    }

    __device__ void after(const Riccati& earlier) {
        if (constant) return;
        const T A1 = earlier.a[0], B1 = earlier.a[1], C1 = earlier.b[0], A2 = a[0], B2 = a[1], C2 = b[0];
        const T through = T(1) / multiply_add(C1, B2, T(1));
        a[0] = A2 * through * A1;
        a[1] = multiply_add(A1 * B2 * through, A1, B1);
        b[0] = multiply_add(A2 * through * C1, A2, C2);
        constant = earlier.constant;
    }

    __device__ void act(T* x) const { x[0] = constant ? b[0] : move(a[0], b[0], a[1], x[0]); }

    __device__ bool trusts(const T* before, const T* after) const { return sure_of(before[0], after[0], constant); }
};

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
