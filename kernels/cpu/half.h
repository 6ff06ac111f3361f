// The 16-bit floats of CUDA, on the CPU: conversions alone, rounded to nearest even.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

struct __nv_bfloat16 { uint16_t bits; };
struct __half { uint16_t bits; };

inline uint32_t bits_of(float x) {
  uint32_t b;
  std::memcpy(&b, &x, 4);
  return b;
}

inline float of_bits(uint32_t b) {
  float x;
  std::memcpy(&x, &b, 4);
  return x;
}

inline float __bfloat162float(__nv_bfloat16 x) { return of_bits(uint32_t(x.bits) << 16); }

inline __nv_bfloat16 __float2bfloat16(float x) {
  uint32_t b = bits_of(x);
  if (std::isnan(x)) return {uint16_t(0x7fff)};
  return {uint16_t((b + 0x7fff + (b >> 16 & 1)) >> 16)};
}

inline float __half2float(__half x) {
  float sign = x.bits & 0x8000 ? -1.0f : 1.0f;
  int exponent = x.bits >> 10 & 31, fraction = x.bits & 1023;
  if (exponent == 31) return fraction ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(float(fraction), -24);
  return sign * std::ldexp(float(fraction | 1024), exponent - 25);
}

inline __half __float2half(float x) {
  uint16_t sign = uint16_t(bits_of(x) >> 16 & 0x8000);
  float size = std::fabs(x);
  if (std::isnan(x)) return {uint16_t(sign | 0x7e00)};
  if (size >= 65520.0f) return {uint16_t(sign | 0x7c00)};
  // Units of the last place: 2^-24 below the normal numbers. nearbyint rounds to even.
  int exponent = size < 6.103515625e-5f ? -14 : std::ilogb(size);
  int units = int(std::nearbyint(std::ldexp(size, 10 - exponent)));
  // A carry out of the fraction is one into the exponent, which is what is meant.
  return {uint16_t(sign | (((exponent + 14) << 10) + units))};
}
