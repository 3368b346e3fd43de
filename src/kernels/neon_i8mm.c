/* What FEAT_I8MM adds (Neoverse V1 and N2, Apple's M2): products of four bytes of which one has no sign. */
#include "fastconv.h"
#include "vectors.h"
#include "extend.h"

#define SUMS
#include "four_bytes.h"

void fc_extend_neon_i8mm(fc_isa *isa, fc_kernels compute[FC_COMPUTES]) {
    add_integers(isa, compute, FC_COMPUTE_U8, &kernels_uint8);
}
