/* Functions of single numbers, in operations that vectorise as the C library's do not. Included once a type with
     T        element type               FN(x)   x with the type's suffix
     BITS     unsigned integer of its size       DOUBLE  whether T is double
     LANES    elements of a vector
   Every one takes NaN, infinities and subnormals; exp, tanh, sigmoid and erf of float are right to 2 units in the last
   place (tests/kernels/test_functions.py), those of double to a few. An element comes out with the same bits wherever
   it lies: whole vectors are computed, the last ones padded. */

#ifndef FASTCONV_FUNCTIONS_H
#define FASTCONV_FUNCTIONS_H
/* The functions that are activations of convolutions. */
static const unsigned char function_of[] = {
    [FC_HARDSWISH] = FC_EW_HARDSWISH, [FC_SILU] = FC_EW_SILU, [FC_SIGMOID] = FC_EW_SIGMOID,
    [FC_TANH] = FC_EW_TANH, [FC_GELU] = FC_EW_GELU, [FC_GELU_TANH] = FC_EW_GELU_TANH,
};
#endif

#if DOUBLE
#define EXP_TERMS(FIRST, X) FIRST(1.6059043836821613e-10) X(2.08767569878681e-09) X(2.505210838544172e-08)           \
    X(2.7557319223985888e-07) X(2.7557319223985893e-06) X(2.4801587301587302e-05) X(0.00019841269841269841)          \
    X(0.0013888888888888889) X(0.0083333333333333332) X(0.041666666666666664) X(0.16666666666666666) X(0.5)
#define TANH_TERMS(FIRST, X) FIRST(-2.6222239924003589e-06) X(1.2606082506231025e-05) X(-3.7455026133315814e-05)     \
    X(9.6243598478318207e-05) X(-0.0002389588822245776) X(0.00058999751342625169) X(-0.0014558307624244699)          \
    X(0.0035921277411351256) X(-0.0088632355143973413) X(0.021869488535669789) X(-0.05396825396824606)               \
    X(0.13333333333333328) X(-0.33333333333333331)
#define ERF_TERMS(FIRST, X) FIRST(-1.7466092793180689e-14) X(4.1173094609706571e-13) X(-6.6392949013161179e-12)      \
    X(9.4125585949928289e-11) X(-1.2289529419960295e-09) X(1.4807117719731329e-08) X(-1.6365840648222765e-07)        \
    X(1.6462114205798046e-06) X(-1.4925650353787866e-05) X(0.00012055332981694495) X(-0.0008548327023449497)         \
    X(0.0052239776254421749) X(-0.026866170645131252) X(0.11283791670955126) X(-0.37612638903183754)                 \
    X(0.12837916709551259)
#define ERFC_TERMS(FIRST, X) FIRST(2.6548299626179104e-22) X(3.4451840620126885e-22) X(-2.2574767600251834e-20)      \
    X(-7.9686755658430329e-22) X(8.7481444008867088e-19) X(-1.1192384749973227e-18) X(-1.9099456867893726e-17)       \
    X(5.5048726005983472e-17) X(2.0859418402532472e-16) X(-1.2698121949208773e-15) X(5.7682649169005451e-16)         \
    X(1.4034626302089547e-14) X(-5.4360077748677978e-14) X(1.8665300094221595e-14) X(6.4338235113195918e-13)         \
    X(-2.6748308902798506e-12) X(1.8094646783541202e-12) X(2.5877383039797123e-11) X(-1.1627345778836811e-10)        \
    X(1.4158741340016204e-10) X(7.048686214505578e-10) X(-4.0347552399567187e-09) X(8.2628496921535477e-09)          \
    X(5.7312757675782187e-09) X(-9.2315267997176914e-08) X(3.016694583496629e-07) X(-4.4377399689635626e-07)         \
    X(-4.4470346254762e-07) X(4.6410177130421411e-06) X(-1.5330768393085905e-05) X(3.4259175421376012e-05)           \
    X(-5.8192750579871749e-05) X(7.7744246390658493e-05) X(-8.211628224626584e-05) X(6.7717810833019991e-05)         \
    X(-4.2295509755614118e-05) X(1.8897993720847083e-05) X(-5.3994267773987479e-06) X(7.4309837234141278e-07)
#define LOG_TERMS(FIRST, X) FIRST(0.07615631309714492) X(0.031670554258851229) X(0.049710124482773677)               \
    X(0.052401996171826372) X(0.058839988836205184) X(0.066665884745690893) X(0.076923101269020813)                  \
    X(0.090909090430028275) X(0.11111111111665993) X(0.14285714285710971) X(0.20000000000000007)                     \
    X(0.33333333333333331)
#define MANTISSA_BITS 52
#define SHIFTER 6755399441055744.0
#define LN2_HIGH 6.93147180369123816490e-01
#define LN2_LOW 1.90821492927058770002e-10
#define LEAST_EXPONENT -746.0
#define MOST_EXPONENT 710.0
#define ALL_LOST -40.0
#define ALL_ONE 40.0
#define LARGER LARGER_double
#define SMALLER SMALLER_double
#define ERF_MIDDLE 3.5
#define ERF_END 6.0
#define NORMAL_FROM 0x1p-1022
#define MADE_NORMAL 54
#define COPY_SIGN copysign
#define MAGNITUDE fabs
#else
#define EXP_TERMS(FIRST, X) FIRST(0.0013814539988) X(0.0083687451164) X(0.041668390787) X(0.16666520399)              \
    X(0.49999993432)
#define TANH_TERMS(FIRST, X) FIRST(0.00237076564) X(-0.0084100708) X(0.021788322) X(-0.0539615518)                   \
    X(0.133333129) X(-0.333333332)
#define ERF_TERMS(FIRST, X) FIRST(-9.66704457e-06) X(0.00011265959) X(-0.000848408041) X(0.00522103181)              \
    X(-0.0268654307) X(0.112837825) X(-0.376126385) X(0.128379167)
#define ERFC_TERMS(FIRST, X) FIRST(-8.83796638e-07) X(-4.87990053e-07) X(1.56674848e-05) X(-1.78376257e-05)          \
    X(-8.09334197e-05) X(0.000270835988) X(-0.000258999119) X(-0.000560654376) X(0.00279777894)                      \
    X(-0.00610891638) X(0.00862251429) X(-0.00835182408) X(0.0054457024) X(-0.00217818024) X(0.000406952017)
#define LOG_TERMS(FIRST, X) FIRST(0.103938084) X(0.0873235123) X(0.111323556) X(0.142851529) X(0.200000054)          \
    X(0.333333333)
#define MANTISSA_BITS 23
#define SHIFTER 12582912.0f /* 1.5 * 2^23: adding it rounds to an integer, which its last bits then are */
#define LN2_HIGH 0.693359375f
#define LN2_LOW -2.12194440e-4f
#define LEAST_EXPONENT -104.0f /* of exp: zero from here down, infinity from the next up */
#define MOST_EXPONENT 89.0f
#define ALL_LOST -20.0f /* exp(x) - 1 is -1 */
#define ALL_ONE 40.0f   /* sigmoid is 1 */
#define LARGER LARGER_float
#define SMALLER SMALLER_float
#define ERF_MIDDLE 2.5f /* of the interval [1, ERF_END] on which the polynomial is erfc */
#define ERF_END 4.0f
#define NORMAL_FROM 0x1p-126f
#define MADE_NORMAL 25 /* the power of two that makes subnormals normal */
#define COPY_SIGN copysignf
#define MAGNITUDE fabsf
#endif

#define FIRST_TERM(c) T p = (T)(c);
#define TERM(c) p = p * z + (T)(c);
#define POLYNOMIAL(name, TERMS)                                                                                      \
    static inline __attribute__((always_inline)) T FN(name)(const T z) {                                             \
        TERMS(FIRST_TERM, TERM)                                                                                      \
        return p;                                                                                                    \
    }
POLYNOMIAL(exp_terms, EXP_TERMS)   /* (exp(z) - 1 - z) / z^2 for |z| <= ln 2 / 2 */
POLYNOMIAL(tanh_terms, TANH_TERMS) /* (tanh(x) - x) / x^3 of z = x^2, x up to TANH_SMALL */
POLYNOMIAL(erf_terms, ERF_TERMS)   /* erf(x) / x - 1 of z = x^2, x up to 1 */
POLYNOMIAL(erfc_terms, ERFC_TERMS) /* 1 - erf(z + ERF_MIDDLE) */
POLYNOMIAL(log_terms, LOG_TERMS)   /* (artanh(x) / x - 1) / x^2 of z = x^2, x up to 1/3 */
#undef FIRST_TERM
#undef TERM
#undef POLYNOMIAL
#define TANH_SMALL (T)0.6
#define ONE (((BITS)-1 >> (MANTISSA_BITS + 2)) << MANTISSA_BITS) /* its bits */
#define INLINE static inline __attribute__((always_inline)) T

INLINE FN(from_bits)(BITS bits) {
    union { BITS bits; T value; } one = {bits};
    return one.value;
}

/* 2^(k + more), k the integer in the last bits of a number to which SHIFTER was added. */
INLINE FN(two_to)(BITS bits, int more) {
    return FN(from_bits)((bits + ((BITS)-1 >> (MANTISSA_BITS + 2)) + (BITS)more) << MANTISSA_BITS);
}

static inline __attribute__((always_inline)) BITS FN(to_bits)(T value) {
    union { T value; BITS bits; } one = {value};
    return one.bits;
}

/* x = k ln 2 + r with |r| <= ln 2 / 2 (Cody and Waite 1980), in two parts of ln 2; gives exp(r) - 1 and k + SHIFTER. */
INLINE FN(reduced_exp)(T x, T *shifted) {
    const T whole = x * (T)1.4426950408889634 + SHIFTER, k = whole - SHIFTER;
    const T r = (x - k * LN2_HIGH) - k * LN2_LOW;
    *shifted = whole;
    return r + (r * r) * FN(exp_terms)(r);
}

INLINE FN(exp)(T x) {
    T whole;
    x = x < LEAST_EXPONENT ? LEAST_EXPONENT : x > MOST_EXPONENT ? MOST_EXPONENT : x;
    const T p = 1 + FN(reduced_exp)(x, &whole);
    /* In two factors: the largest power is no number of the type, and the smallest no normal one. */
    const BITS half = FN(to_bits)((whole - SHIFTER) * (T)0.5 + SHIFTER);
    return p * FN(two_to)(half, 0) * FN(two_to)(FN(to_bits)(whole) - half, 0);
}

INLINE FN(exp_small)(T x) { /* of |x| <= 40 */
    T whole;
    const T p = 1 + FN(reduced_exp)(x, &whole);
    return p * FN(two_to)(FN(to_bits)(whole), 0);
}

INLINE FN(exp_below)(T x) { /* of x <= 0 */
    T whole;
    const T p = 1 + FN(reduced_exp)(x < LEAST_EXPONENT ? LEAST_EXPONENT : x, &whole);
    return p * FN(two_to)(FN(to_bits)(whole), MADE_NORMAL) * FN(from_bits)(ONE - ((BITS)MADE_NORMAL << MANTISSA_BITS));
}

INLINE FN(exp_minus_1)(T x) { /* of x <= 0 */
    T whole;
    const T p = FN(reduced_exp)(x < ALL_LOST ? ALL_LOST : x > 0 ? 0 : x, &whole);
    const T scale = FN(two_to)(FN(to_bits)(whole), 0);
    return p * scale + (scale - 1);
}

/* Whole vectors at a time, what costs most in nets. */
typedef T FN(vector) __attribute__((vector_size(LANES * sizeof(T)), aligned(sizeof(T)), may_alias));
typedef BITS FN(vector_bits) __attribute__((vector_size(LANES * sizeof(T)), aligned(sizeof(T)), may_alias));
#define VECTOR static inline __attribute__((always_inline)) FN(vector)

VECTOR FN(between)(T least, T most, FN(vector) x) {
    return SMALLER((FN(vector)){0} + most, LARGER((FN(vector)){0} + least, x));
}

/* s / (s + q), s = 2^k and q = exp(k ln 2 - x) with k the nearest to x / ln 2; both are held MADE_NORMAL powers of two higher,
   where the least s that matters is a normal number. A small s joins q - 1, which is small, too: 1 + s would lose it.
   With several `parts` k is the nearest multiple of 1 / parts: two terms of q are enough, and s, 2^(i / parts) moved by
   a whole power of two, is looked up. That takes 0.83 of the time and errs by 2.2 units in the last place, not 2, which is
   enough where x is multiplied by it. */
#define SCALE (T)((BITS)1 << MADE_NORMAL)
#if !DOUBLE && defined(__AVX2__) && !defined(__clang__) /* one instruction looks up a number for every lane */
#define PARTS LANES
#define NEAR_TERMS(FIRST, X) FIRST(0.16666667) X(LANES == 16 ? 0.50001620 : 0.50006473)
#if LANES == 16 /* each less what the bits of i, moved with the others, add to it */
#define PART_BITS 4
#define POWERS                                                                                                       \
    0x4c000000, 0x4bfdaac3, 0x4bfb95c2, 0x4bf9c3d3, 0x4bf837f0, 0x4bf6f532, 0x4bf5fed7, 0x4bf5583f, 0x4bf504f3,      \
        0x4bf508a4, 0x4bf5672a, 0x4bf6248c, 0x4bf744fd, 0x4bf8ccdf, 0x4bfac0c7, 0x4bfd257d
#else
#define PART_BITS 3
#define POWERS 0x4c000000, 0x4bfb95c2, 0x4bf837f0, 0x4bf5fed7, 0x4bf504f3, 0x4bf5672a, 0x4bf744fd, 0x4bfac0c7
#endif
#else
#define PARTS 1
#endif
#define FIRST_TERM(c) p = (FN(vector)){0} + (T)(c) * SCALE;
#define TERM(c) p = p * r + (T)(c) * SCALE;
VECTOR FN(logistic)(FN(vector) x, const int parts) {
    const FN(vector) within = FN(between)(LEAST_EXPONENT, ALL_ONE, x);
    const FN(vector) whole = within * (T)(parts * 1.4426950408889634) + SHIFTER, k = whole - SHIFTER;
    const FN(vector) r = (k * (LN2_HIGH / parts) - within) + k * (LN2_LOW / parts);
    const FN(vector_bits) bits = (FN(vector_bits))whole;
    FN(vector) s, p;
#if PARTS > 1
    if (parts > 1) {
        static const FN(vector_bits) powers = {POWERS};
        s = (FN(vector))((bits << (MANTISSA_BITS - PART_BITS)) + __builtin_shuffle(powers, bits));
        NEAR_TERMS(FIRST_TERM, TERM)
    } else
#endif
    {
        const BITS higher = ((BITS)-1 >> (MANTISSA_BITS + 2)) + MADE_NORMAL;
        s = (FN(vector))((bits + higher) << MANTISSA_BITS);
        EXP_TERMS(FIRST_TERM, TERM)
    }
    p = p * r + SCALE;
    return s / ((p * r + s) + SCALE);
}
#undef FIRST_TERM
#undef TERM
#undef NEAR_TERMS
#undef PART_BITS
#undef SCALE
#undef POWERS

VECTOR FN(sigmoid)(FN(vector) x) { return FN(logistic)(x, 1); }

VECTOR FN(silu)(FN(vector) x) { return x * FN(logistic)(x, PARTS); }

VECTOR FN(hardswish)(FN(vector) x) { return x * (FN(between)(0, 6, x + 3) * (1 / (T)6)); }

/* x (1 + tanh(u)) / 2 = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3) */
VECTOR FN(gelu_tanh)(FN(vector) x) {
    return x * FN(logistic)(x * ((T)1.5957691216057308 + (T)0.071354816272600250 * (x * x)), PARTS);
}
#undef PARTS

INLINE FN(tanh)(T x) {
    const T a = MAGNITUDE(x), z = a * a;
    const T small = a + a * (z * FN(tanh_terms)(z)), large = 1 - 2 / (1 + FN(exp_small)(a > 20 ? 40 : 2 * a));
    return COPY_SIGN(a < TANH_SMALL ? small : large, x);
}

INLINE FN(erf)(T x) {
    const T a = MAGNITUDE(x), end = a > ERF_END ? ERF_END : a;
    const T small = a + a * FN(erf_terms)(a * a), large = 1 - FN(erfc_terms)(end - ERF_MIDDLE);
    return COPY_SIGN(a < 1 ? small : large, x);
}

INLINE FN(log_1_plus)(T x) { /* of 0 <= x <= 1 */
    const T s = x / (2 + x), z = s * s;
    return 2 * s + 2 * s * (z * FN(log_terms)(z));
}

INLINE FN(log)(T x) {
    const T scaled = x < NORMAL_FROM ? x * (T)((BITS)1 << MADE_NORMAL) : x;
    const BITS mask = ((BITS)1 << MANTISSA_BITS) - 1;
    const T shift = (T)((BITS)1 << MANTISSA_BITS); /* its last bits may be read as an integer */
    const BITS bits = FN(to_bits)(scaled);
    const T m = FN(from_bits)((bits & mask) | ONE), much = (T)1.4142135623730951;
    const T exponent = FN(from_bits)(FN(to_bits)(shift) | bits >> MANTISSA_BITS) - shift;
    const T bias = (T)((BITS)-1 >> (MANTISSA_BITS + 2)) + (x < NORMAL_FROM ? (T)MADE_NORMAL : 0);
    const T k = (exponent - bias) + (m > much ? (T)1 : 0), f = m > much ? m * (T)0.5 : m;
    const T s = (f - 1) / (f + 1), z = s * s;
    const T found = k * LN2_HIGH + (2 * s + (2 * s * (z * FN(log_terms)(z)) + k * LN2_LOW));
    const T special = x == 0 ? -(T)INFINITY : (T)NAN;
    return x > 0 ? (x == (T)INFINITY ? x : found) : special;
}

INLINE FN(gelu)(T x) { return x * (T)0.5 * (1 + FN(erf)(x * (T)0.70710678118654752)); }

INLINE FN(softplus)(T x) { return (x > 0 ? x : 0) + FN(log_1_plus)(FN(exp_below)(-MAGNITUDE(x))); }

/* x tanh(log(1 + e)) = x n / (n + 2), n = e (e + 2), e = exp(x) */
INLINE FN(mish)(T x) {
    const T e = FN(exp)(x > 40 ? 40 : x), n = e * (e + 2);
    return x * (n / (n + 2));
}

#define EACH(...)                                                                                                    \
    for (ptrdiff_t row = 0; row < rows; row++, values += ld)                                                         \
        for (ptrdiff_t i = 0; i < count; i++) {                                                                      \
            const T v = values[i];                                                                                   \
            values[i] = __VA_ARGS__;                                                                                 \
        }                                                                                                            \
    break
#define EACH_VECTOR(...)                                                                                             \
    for (ptrdiff_t row = 0; row < rows; row++, values += ld)                                                         \
        for (ptrdiff_t i = 0; i < count; i += LANES) {                                                               \
            const FN(vector) v = *(const FN(vector) *)(values + i);                                                  \
            *(FN(vector) *)(values + i) = __VA_ARGS__;                                                               \
        }                                                                                                            \
    break

/* A function (fc_elementwise) of so many whole vectors in each of the rows, which lie `ld` elements apart. */
static __attribute__((noinline)) void FN(map_vectors)(int code, T b, T *values, ptrdiff_t ld, ptrdiff_t rows,
                                                     ptrdiff_t vectors) {
    const ptrdiff_t count = vectors * LANES;
    switch (code) {
    case FC_EW_EXP: EACH(FN(exp)(v));
    case FC_EW_LOG: EACH(FN(log)(v));
    case FC_EW_ERF: EACH(FN(erf)(v));
    case FC_EW_TANH: EACH(FN(tanh)(v));
    case FC_EW_SIGMOID: EACH_VECTOR(FN(sigmoid)(v));
    case FC_EW_SILU: EACH_VECTOR(FN(silu)(v));
    case FC_EW_HARDSWISH: EACH_VECTOR(FN(hardswish)(v));
    case FC_EW_GELU: EACH(FN(gelu)(v));
    case FC_EW_GELU_TANH: EACH_VECTOR(FN(gelu_tanh)(v));
    case FC_EW_SOFTPLUS: EACH(FN(softplus)(v));
    case FC_EW_MISH: EACH(FN(mish)(v));
    case FC_EW_ELU: EACH(v < 0 ? b * FN(exp_minus_1)(v) : v);
    case FC_EW_CELU: EACH(v < 0 ? b * FN(exp_minus_1)(v / b) : v);
    default: break;
    }
}
#undef EACH
#undef EACH_VECTOR

/* The same of any number of values in each row; those that fill no vector are done together. */
static void FN(map_rows)(int code, double number, T *values, ptrdiff_t ld, ptrdiff_t rows, ptrdiff_t count) {
    enum { TOGETHER = 8 * LANES };
    if (ld == count) count *= rows, rows = 1;
    const ptrdiff_t whole = count / LANES, rest = count % LANES;
    if (whole) FN(map_vectors)(code, (T)number, values, ld, rows, whole);
    if (!rest) return;
    for (ptrdiff_t row = 0, n; row < rows; row += n) {
        T line[TOGETHER] = {0}, *tail = values + row * ld + whole * LANES;
        n = rows - row < TOGETHER / rest ? rows - row : TOGETHER / rest;
        for (ptrdiff_t i = 0; i < n; i++)
            for (ptrdiff_t j = 0; j < rest; j++) line[i * rest + j] = tail[i * ld + j];
        FN(map_vectors)(code, (T)number, line, 0, 1, (n * rest + LANES - 1) / LANES);
        for (ptrdiff_t i = 0; i < n; i++)
            for (ptrdiff_t j = 0; j < rest; j++) tail[i * ld + j] = line[i * rest + j];
    }
}

/* The same of a single row. */
static void FN(map)(int code, double number, T *values, ptrdiff_t count) {
    FN(map_rows)(code, number, values, count, 1, count);
}

#undef INLINE
#undef VECTOR
#undef LARGER
#undef SMALLER
#undef ALL_ONE
#undef TANH_SMALL
#undef ONE
#undef EXP_TERMS
#undef TANH_TERMS
#undef ERF_TERMS
#undef ERFC_TERMS
#undef LOG_TERMS
#undef MANTISSA_BITS
#undef SHIFTER
#undef LN2_HIGH
#undef LN2_LOW
#undef LEAST_EXPONENT
#undef MOST_EXPONENT
#undef ALL_LOST
#undef ERF_MIDDLE
#undef ERF_END
#undef NORMAL_FROM
#undef MADE_NORMAL
#undef COPY_SIGN
#undef MAGNITUDE
#undef T
#undef FN
#undef BITS
#undef DOUBLE
#undef LANES
