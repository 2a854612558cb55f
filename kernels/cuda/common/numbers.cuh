// How numbers are stored and in which type they are computed: 16-bit types are for storage, arithmetic is in float.

#pragma once

#include "common/device.cuh"

namespace recsolve {

struct Half {
    unsigned short bits;
};

struct Bfloat {
    unsigned short bits;
};

template <class S> struct Stored {
    using Number = S;
    __device__ static Number get(S x) { return x; }
    __device__ static S put(Number x) { return x; }
};

template <> struct Stored<Half> {
    using Number = float;
    __device__ static float get(Half x) { return from_half(x.bits); }
    __device__ static Half put(float x) { return Half{to_half(x)}; }
};

template <> struct Stored<Bfloat> {
    using Number = float;
    __device__ static float get(Bfloat x) { return from_bfloat(x.bits); }
    __device__ static Bfloat put(float x) { return Bfloat{to_bfloat(x)}; }
};

// COUNT contiguous numbers, which move as one where they are aligned.
template <class S, int COUNT> struct alignas(COUNT * sizeof(S)) Vector {
    S numbers[COUNT];
};

template <int COUNT, class S> __device__ inline void copy(S* to, const S* from) {
    *reinterpret_cast<Vector<S, COUNT>*>(to) = *reinterpret_cast<const Vector<S, COUNT>*>(from);
}

// The byte at an address, whose last bits suffice, out of the aligned word that holds it.
__device__ inline unsigned int byte_at(unsigned int word, unsigned int at) {
    return word >> 8 * (at & 3) & 255;
}
__device__ inline unsigned int byte_of(unsigned int word, const unsigned char* at) {
    return byte_at(word, static_cast<unsigned int>(reinterpret_cast<unsigned long long>(at)));
}

// Comparisons, not library functions: these keep their meaning whatever the compiler is told about NaN elsewhere.
template <class T> __device__ inline bool finite(T x) {
    return x - x == T(0);
}
template <class T> __device__ inline bool is_nan(T x) {
    return x != x;
}

// Minima and maxima that pass NaN on, as NumPy's do.
template <class T> __device__ inline T least(T x, T y) {
    return x < y || is_nan(x) ? x : y;
}
template <class T> __device__ inline T greatest(T x, T y) {
    return x > y || is_nan(x) ? x : y;
}

}  // namespace recsolve
