/* What FEAT_DotProd adds to NEON (ARM's Cortex from A55 and A75 on, Apple's M1): products of four bytes with a sign in
   one instruction. */
#include "fastconv.h"
#include "vectors.h"
#include "extend.h"

#define SUMS
#include "four_bytes.h"

void fc_extend_neon_dotprod(fc_isa *isa, fc_kernels compute[FC_COMPUTES]) {
    add_integers(isa, compute, FC_COMPUTE_U8, &kernels_uint8);
}
