/* exp(x) = 2^k exp(r) with |r| <= ln 2 / 2 for float, in operations that vectorise, as the C library's does not (Cody and
   Waite 1980, with the Taylor polynomial of degree 7: its rest is below half a unit in the last place); beyond the range
   of float infinity and its least normal number. NaN passes through. */
static inline float exp_float(float x) {
    const float shifter = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    const float high = 0.693359375f, low = -2.12194440e-4f; /* ln 2 in two parts */
    x = x < -87.3f ? -87.3f : x > 89.0f ? 89.0f : x; /* exp(89) is beyond the range: infinity */
    const float k = (x * 1.44269504f + shifter) - shifter;
    const float r = (x - k * high) - k * low;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    /* In two factors: 2^128 is no float. A NaN is no integer; p holds it. */
    const int32_t whole = (int32_t)(k == k ? k : 0.0f), first = whole / 2;
    union { uint32_t bits; float value; } half = {((uint32_t)first + 127u) << 23};
    union { uint32_t bits; float value; } other = {((uint32_t)(whole - first) + 127u) << 23};
    return p * half.value * other.value;
}
