/* What the sets that extend another share. */
#include <string.h>

/* A table of products of integers becomes a set's own: sums and results are of int32, as are those of int32's table. */
static void add_integers(fc_isa *isa, fc_kernels compute[FC_COMPUTES], int number, const fc_kernels *table) {
    fc_kernels *own = &compute[number];
    *own = *table;
    own->add = compute[FC_COMPUTE_I32].add;
    memcpy(own->store, compute[FC_COMPUTE_I32].store, sizeof own->store);
    isa->compute[number] = own;
}
