// Many lanes, but fewer than would fill the device with loads of their own: more must be under way than registers hold.
// Some threads of a block walk; the others keep a ring of pieces of time in shared memory filled ahead of them, as the
// numbers lie in memory, and write the states behind them.

#pragma once

#include "scan/piece_order.cuh"
#include "scan/registers.cuh"

namespace recsolve {

// A ring of PIECES pieces of the lanes of a block, each of which lies in an order.
template <class Map_, class S_, bool CUT_, int COPIERS_, int PIECES_, class Order_> struct Ring {
    using Map = Map_;
    using S = S_;
    using Order = Order_;
    using T = typename Map::Number;
    using Numbers = Planes<Map>;
    using Cuts = Across<Order::WIDTH, Order::PIECE, 1>;
    static constexpr bool CUT = CUT_;
    static constexpr int E = Map::entries, K = Map::parts, PLANES = Numbers::COUNT, PIECES = PIECES_;
    static constexpr int COPIERS = COPIERS_, WIDTH = Order::WIDTH, PIECE = Order::PIECE, PLANE = Order::SIZE;
    static constexpr int AT_ONCE = PLANES <= 3 ? 8 : PLANES <= 6 ? 4 : PLANES <= 12 ? 2 : 1;  // steps read
    static constexpr int FITTING = AT_ONCE < PIECE ? AT_ONCE : PIECE;
    static constexpr int TOGETHER = FITTING < Order::LEAST ? Order::LEAST : FITTING;
    enum { OF_Y = INPUTS, OF_CUT, ARRAYS };

    const Problem& p;
    const long long first_lane;
    long long* offsets;               // [array][lane]
    S* numbers;                       // [piece][number][place]
    unsigned int* words;              // [piece][place], that hold the bytes of cuts

    __device__ Ring(const Problem& problem, long long tile) : p(problem), first_lane(tile * WIDTH) {
        offsets = reinterpret_cast<long long*>(shared_memory());
        numbers = reinterpret_cast<S*>(offsets + ARRAYS * WIDTH);
        words = reinterpret_cast<unsigned int*>(numbers + PIECES * PLANES * PLANE);
        for (int i = threadIdx.x; i < ARRAYS * WIDTH; i += WIDTH + COPIERS) {
            const int array = i / WIDTH;
            const long long lane = first_lane + i % WIDTH;
            const View& view = array < INPUTS ? p.in[array] : array == OF_Y ? p.y : p.cut;
            const bool used = lane < p.lanes && (array < INPUTS ? p.in[array].at : array == OF_Y || CUT);
            offsets[i] = used ? offset_of(view, p.sizes, lane) : 0;
        }
        __syncthreads();
    }

    __device__ S* plane(int piece, int c) const { return numbers + (piece * PLANES + c) * PLANE; }

    __device__ bool cut_at(int lane, int piece, long long first, int step) const {
        if (!CUT) return false;
        const unsigned int lanes = static_cast<unsigned int>(p.cut.at + offsets[OF_CUT * WIDTH + lane]);
        const unsigned int times = static_cast<unsigned int>(first + step) * static_cast<unsigned int>(p.cut.time);
        return byte_at(words[piece * Cuts::SIZE + step * Cuts::PITCH + lane], lanes + times);
    }

    // Walks a piece, the whole of it if WHOLE: TOGETHER steps are read at once, for shared memory answers late. States
    // take the place of the first vector.
    template <bool WHOLE>
    __device__ void walk(int lane, int piece, long long first, const T* initial, T* x) const {
#pragma unroll
        for (int i = 0; i < PIECE; i += TOGETHER) {
            S held[PLANES][TOGETHER];
            bool cuts[TOGETHER];
#pragma unroll
            for (int c = 0; c < PLANES; ++c) {
                Order::template read<TOGETHER>(plane(piece, c), i, lane, p.in[Numbers::input(c)].time < 0, held[c]);
            }
#pragma unroll
            for (int j = 0; j < TOGETHER; ++j) cuts[j] = cut_at(lane, piece, first, i + j);
#pragma unroll
            for (int j = 0; j < TOGETHER; ++j) {
                if (!WHOLE && first + i + j >= p.steps) break;
                T element[PLANES];
#pragma unroll
                for (int c = 0; c < PLANES; ++c) element[c] = Stored<S>::get(held[c][j]);
                const bool starts = i + j == 0 && first == 0 && !p.initial.at;
                Map::step(element, element + E, cuts[j] || starts, initial, x);
#pragma unroll
                for (int k = 0; k < K; ++k) held[E + k][j] = Stored<S>::put(x[k]);
            }
#pragma unroll
            for (int k = 0; k < K; ++k) {
                Order::template write<TOGETHER>(plane(piece, E + k), i, lane, p.y.time < 0, held[E + k]);
            }
            if (!WHOLE && first + i + TOGETHER >= p.steps) return;
        }
    }
};

// What one thread moves between memory and a ring.
template <class Ring> struct Copier {
    using S = typename Ring::S;
    using Numbers = typename Ring::Numbers;
    using Order = typename Ring::Order;
    static constexpr int COUNT = Order::COUNT;

    const Ring& ring;
    Mover<Order, COUNT, Ring::COPIERS> in[Numbers::ARRAYS], y;
    Mover<typename Ring::Cuts, 1, Ring::COPIERS> cut;

    __device__ Copier(const Ring& of, int thread) : ring(of) {
        const Problem& p = ring.p;
        const long long lanes = p.lanes - ring.first_lane;
#pragma unroll
        for (int i = 0; i < Numbers::ARRAYS; ++i) {
            in[i].find(thread, p.in[i], p.by_time_in[i], ring.offsets + i * Ring::WIDTH, lanes);
        }
        y.find(thread, p.y, p.by_time_y, ring.offsets + Ring::OF_Y * Ring::WIDTH, lanes);
        if (Ring::CUT) cut.find(thread, p.cut, p.by_time_y, ring.offsets + Ring::OF_CUT * Ring::WIDTH, lanes);
    }

    // Asks for the numbers of a piece.
    __device__ void ask(int piece, long long first) const {
        const Problem& p = ring.p;
#pragma unroll
        for (int i = 0; i < Numbers::ARRAYS; ++i) {
            const S* from = address<const S>(p.in[i].at);
            in[i].each(p.in[i], first, p.steps, [&](int at, long long distance) {
#pragma unroll 4
                for (int c = Numbers::first(i); c < Numbers::first(i) + Numbers::count(i); ++c) {
                    copy_async<COUNT>(ring.plane(piece, c) + at, from + Numbers::distance(p, c) + distance);
                }
            });
        }
        if (Ring::CUT) {
            const unsigned char* from = address<const unsigned char>(p.cut.at);
            unsigned int* to = ring.words + piece * Ring::Cuts::SIZE;
            cut.each(p.cut, first, p.steps,
                     [&](int at, long long distance) { copy_word_async(to + at, from + distance); });
        }
    }

    // Writes the states of a piece.
    __device__ void store(int piece, long long first) const {
        const Problem& p = ring.p;
        S* to = address<S>(p.y.at);
        y.each(p.y, first, p.steps, [&](int at, long long distance) {
#pragma unroll
            for (int k = 0; k < Ring::K; ++k) {
                copy<COUNT>(to + k * p.y.row + distance, ring.plane(piece, Ring::E + k) + at);
            }
        });
    }
};

// Blocks that a multiprocessor is to hold; 0: as the compiler likes. It likes few registers, too few where numbers of 16
// bits wait in them, one by one, on their way to shared memory.
template <class S, class Order> constexpr int BLOCKS = Order::COUNT * sizeof(S) < 4 ? 1 : 0;

// Threads that walk through time, and others that copy for them.
template <class Map, class S, bool CUT, int COPIERS, int PIECES, class Order>
__global__ void __launch_bounds__(Order::WIDTH + COPIERS, BLOCKS<S, Order>) streamed(const Problem p) {
    using T = typename Map::Number;
    using Its = Ring<Map, S, CUT, COPIERS, PIECES, Order>;
    constexpr int K = Map::parts, WIDTH = Order::WIDTH, PIECE = Order::PIECE;
    constexpr int UNDER_WAY = PIECES - 2;  // one is walked, one written
    const Its ring(p, blockIdx.x);
    const bool walks = threadIdx.x < WIDTH;
    const int own = walks ? threadIdx.x : threadIdx.x - WIDTH;
    const long long lane = ring.first_lane + own;
    T initial[K], x[K];
#pragma unroll
    for (int k = 0; k < K; ++k) initial[k] = T(0);
    if (walks && lane < p.lanes) initial_state<T, K>(p, lane, initial);
#pragma unroll
    for (int k = 0; k < K; ++k) x[k] = initial[k];
    const Copier<Its> copier(ring, own);
    for (int i = 0; i < UNDER_WAY; ++i) {
        if (!walks) copier.ask(i, static_cast<long long>(i) * PIECE);
        commit_copies();
    }
    int piece = 0;
    long long first = 0;
    for (; first < p.steps; first += PIECE) {
        wait_copies<UNDER_WAY - 1>();
        __syncthreads();
        if (walks) {
            const bool whole = first + PIECE <= p.steps;
            if (whole) ring.template walk<true>(own, piece, first, initial, x);
            if (!whole) ring.template walk<false>(own, piece, first, initial, x);
        } else {
            if (first > 0) copier.store(piece == 0 ? PIECES - 1 : piece - 1, first - PIECE);
            copier.ask(piece < 2 ? piece + PIECES - 2 : piece - 2, first + UNDER_WAY * PIECE);
        }
        commit_copies();
        piece = piece == PIECES - 1 ? 0 : piece + 1;
    }
    wait_copies<0>();
    __syncthreads();
    if (!walks && first > 0) copier.store(piece == 0 ? PIECES - 1 : piece - 1, first - PIECE);
}

}  // namespace recsolve
