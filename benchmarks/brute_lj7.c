/* Euler-Maruyama of the planar LJ7 cluster, W copies at a time: see brute.py. Compiled with
 * gcc -O3 -march=native -ffast-math -fopenmp-simd -shared -fPIC. */
#include <math.h>
#include <stdint.h>

enum { N = 7, W = 16 };                    /* atoms; copies that move together, one in each lane */
typedef double chunk[N][W];
typedef struct { uint64_t s[4][W]; } rng;  /* xoshiro256+ (Blackman, Vigna 2018), a stream for each copy */

/* One pair of independent standard normal numbers for each copy (Box, Muller 1958). */
static inline void normals(rng *r, double *restrict a, double *restrict b)
{
    double u[W], v[W];
    for (int half = 0; half < 2; half++) {
        double *restrict to = half ? v : u;
#pragma omp simd
        for (int m = 0; m < W; m++) {
            uint64_t s0 = r->s[0][m], s1 = r->s[1][m], s2 = r->s[2][m], s3 = r->s[3][m];
            uint64_t bits = (s0 + s3) >> 12;
            uint64_t t = s1 << 17;
            s2 ^= s0; s3 ^= s1; s1 ^= s2; s0 ^= s3; s2 ^= t; s3 = (s3 << 45) | (s3 >> 19);
            r->s[0][m] = s0; r->s[1][m] = s1; r->s[2][m] = s2; r->s[3][m] = s3;
            union { uint64_t i; double d; } x = { .i = bits | 0x3ff0000000000000ull };
            to[m] = 2.0 - x.d;             /* uniform in (0, 1], steps of 2^-52 */
        }
    }
#pragma omp simd
    for (int m = 0; m < W; m++) {
        double radius = sqrt(-2.0 * log(u[m])), angle = 6.283185307179586 * v[m];
        a[m] = radius * cos(angle);
        b[m] = radius * cos(angle - 1.5707963267948966);   /* gcc does not vectorise sin and cos of one angle */
    }
}

static void force(double (*restrict x)[W], double (*restrict y)[W], double (*restrict fx)[W], double (*restrict fy)[W])
{
    double cx[W] = {0}, cy[W] = {0}, sx[W] = {0}, sy[W] = {0};
    for (int i = 0; i < N; i++)
#pragma omp simd
        for (int m = 0; m < W; m++) { cx[m] += x[i][m] / N; cy[m] += y[i][m] / N; }
    for (int i = 0; i < N; i++)
#pragma omp simd
        for (int m = 0; m < W; m++) {
            double dx = x[i][m] - cx[m], dy = y[i][m] - cy[m], d = sqrt(dx * dx + dy * dy) + 1e-300;
            double pull = -100.0 * fmax(0.0, d - 2.0) / d;
            fx[i][m] = pull * dx; fy[i][m] = pull * dy;
            sx[m] += pull * dx / N; sy[m] += pull * dy / N;
        }
    for (int i = 0; i < N; i++) {
#pragma omp simd
        for (int m = 0; m < W; m++) { fx[i][m] -= sx[m]; fy[i][m] -= sy[m]; }
        for (int j = 0; j < i; j++)
#pragma omp simd
            for (int m = 0; m < W; m++) {
                double dx = x[i][m] - x[j][m], dy = y[i][m] - y[j][m];
                double r2 = 1.0 / (dx * dx + dy * dy), r6 = r2 * r2 * r2, f = 24.0 * (2.0 * r6 * r6 - r6) * r2;
                fx[i][m] += f * dx; fy[i][m] += f * dy;
                fx[j][m] -= f * dx; fy[j][m] -= f * dy;
            }
    }
}

static void coordination(double (*restrict x)[W], double (*restrict y)[W], double (*restrict c)[W])
{
    for (int i = 0; i < N; i++)
        for (int m = 0; m < W; m++) c[i][m] = 0.0;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < i; j++)
#pragma omp simd
            for (int m = 0; m < W; m++) {
                double dx = x[i][m] - x[j][m], dy = y[i][m] - y[j][m], q = (dx * dx + dy * dy) / 2.25;
                q *= q;
                double w = 1.0 / (1.0 + q * q);
                c[i][m] += w; c[j][m] += w;
            }
    for (int i = 0; i < N; i++)            /* bubble sort: no branches, all copies alike */
        for (int j = N - 1; j > i; j--)
#pragma omp simd
            for (int m = 0; m < W; m++) {
                double high = fmax(c[j - 1][m], c[j][m]), low = fmin(c[j - 1][m], c[j][m]);
                c[j - 1][m] = high; c[j][m] = low;
            }
}

/* Forces of all copies. */
void forces(int chunks, chunk *x, chunk *y, chunk *fx, chunk *fy)
{
    for (int k = 0; k < chunks; k++) force(x[k], y[k], fx[k], fy[k]);
}

/* Move all copies by some steps. */
void advance(int chunks, chunk *x, chunk *y, rng *streams, int steps, double dt, double spread)
{
    for (int k = 0; k < chunks; k++) {
        chunk fx, fy;
        double (*restrict u)[W] = x[k], (*restrict v)[W] = y[k], a[W], b[W];
        for (int step = 0; step < steps; step++) {
            force(u, v, fx, fy);
            for (int i = 0; i < N; i++) {
                normals(streams + k, a, b);
#pragma omp simd
                for (int m = 0; m < W; m++) {
                    u[i][m] += dt * fx[i][m] + spread * a[m];
                    v[i][m] += dt * fy[i][m] + spread * b[m];
                }
            }
        }
    }
}

/* Sorted coordination numbers of all copies, largest first, and the region of each: 1 .. 4, the first whose center is
 * within the radius, or 0. */
void regions(int chunks, chunk *x, chunk *y, double (*centers)[N], double radius, chunk *c, int32_t (*codes)[W])
{
    for (int k = 0; k < chunks; k++) {
        coordination(x[k], y[k], c[k]);
        for (int m = 0; m < W; m++) codes[k][m] = 0;
        for (int r = 3; r >= 0; r--) {
            double d[W] = {0};
            for (int i = 0; i < N; i++)
                for (int m = 0; m < W; m++) d[m] += (c[k][i][m] - centers[r][i]) * (c[k][i][m] - centers[r][i]);
            for (int m = 0; m < W; m++) codes[k][m] = d[m] <= radius * radius ? r + 1 : codes[k][m];
        }
    }
}
