// The gated delta rule over some columns of the state, token by token. The columns do not depend on
// each other, so a strip of them stays in the first-level cache for the whole sequence, and each
// token costs one pass over it.
#pragma once

#include "ops/attention_vec.h"
#include "ops/isa.h"

namespace emm::ops {
namespace {

constexpr int kDeltaVectors = 2;
constexpr int64_t kDeltaColumns = kDeltaVectors * kLanes;

// Loads and stores the part of a vector that lies within `count` columns, which may be none of it.
inline vf load_some(const float* p, int64_t count) {
  if (count >= kLanes) {
    return load(p);
  }
  vf v = {};
  for (int i = 0; i < kLanes; ++i) {
    if (i < count) {
      v[i] = p[i];
    }
  }
  return v;
}

inline void store_some(float* p, vf v, int64_t count) {
  if (count >= kLanes) {
    store(p, v);
    return;
  }
  for (int i = 0; i < kLanes; ++i) {
    if (i < count) {
      p[i] = v[i];
    }
  }
}

// What one token brings for each row of the state.
struct DeltaToken {
  const float* k;
  const float* q;
  const float* decay;
  int64_t decay_step;  // 0 for a decay that all rows share
};

inline DeltaToken delta_token(const GatedDeltaHead& h, int64_t token) {
  const int64_t width = h.scalar_decay ? 1 : h.keys;
  return {h.k + token * h.keys, h.q + token * h.keys, h.decay + token * width,
          h.scalar_decay ? 0 : 1};
}

// state^T (decay k) before a token: what the decayed state predicts for its value.
inline void delta_predict(const GatedDeltaHead& h, const DeltaToken& t, const float* state,
                          vf* predicted) {
  EMM_UNROLL for (int n = 0; n < kDeltaVectors; ++n) { predicted[n] = vf{}; }
  for (int64_t i = 0; i < h.keys; ++i) {
    const float factor = t.decay[i * t.decay_step] * t.k[i];
    EMM_UNROLL for (int n = 0; n < kDeltaVectors; ++n) {
      predicted[n] += factor * load(state + i * kDeltaColumns + n * kLanes);
    }
  }
}

// Applies a token to the state and reads it with the first query head; on the way it predicts for
// the `next` token.
inline void delta_step(const GatedDeltaHead& h, const DeltaToken& t, const DeltaToken& next,
                       float* state, const vf* delta, vf* result, vf* predicted) {
  EMM_UNROLL for (int n = 0; n < kDeltaVectors; ++n) { result[n] = predicted[n] = vf{}; }
  for (int64_t i = 0; i < h.keys; ++i) {
    const float decay = t.decay[i * t.decay_step];
    const float k = t.k[i];
    const float q = t.q[i];
    const float factor = next.decay[i * next.decay_step] * next.k[i];
    EMM_UNROLL for (int n = 0; n < kDeltaVectors; ++n) {
      float* at = state + i * kDeltaColumns + n * kLanes;
      const vf s = load(at) * decay + k * delta[n];
      store(at, s);
      result[n] += q * s;
      predicted[n] += factor * s;
    }
  }
}

void gated_delta(const GatedDeltaHead& h, int64_t column, float* state) {
  const int64_t columns = least(kDeltaColumns, h.values - column);
  for (int64_t i = 0; i < h.keys; ++i) {
    EMM_UNROLL for (int n = 0; n < kDeltaVectors; ++n) {
      store(state + i * kDeltaColumns + n * kLanes,
            load_some(h.state_in + i * h.values + column + n * kLanes, columns - n * kLanes));
    }
  }
  vf predicted[kDeltaVectors];
  if (h.tokens > 0) {
    delta_predict(h, delta_token(h, 0), state, predicted);
  }
  for (int64_t token = 0; token < h.tokens; ++token) {
    vf delta[kDeltaVectors];
    vf result[kDeltaVectors];
    const int64_t at = token * h.values + column;
    EMM_UNROLL for (int n = 0; n < kDeltaVectors; ++n) {
      delta[n] =
          h.beta[token] * (load_some(h.v + at + n * kLanes, columns - n * kLanes) - predicted[n]);
    }
    const DeltaToken next = delta_token(h, least(token + 1, h.tokens - 1));
    delta_step(h, delta_token(h, token), next, state, delta, result, predicted);
    for (int64_t g = 0; g < h.group; ++g) {
      if (g > 0) {  // the other query heads read the same state
        const float* q = h.q + (g * h.tokens + token) * h.keys;
        EMM_UNROLL for (int n = 0; n < kDeltaVectors; ++n) { result[n] = vf{}; }
        for (int64_t i = 0; i < h.keys; ++i) {
          EMM_UNROLL for (int n = 0; n < kDeltaVectors; ++n) {
            result[n] += q[i] * load(state + i * kDeltaColumns + n * kLanes);
          }
        }
      }
      EMM_UNROLL for (int n = 0; n < kDeltaVectors; ++n) {
        store_some(h.out + g * h.tokens * h.values + at + n * kLanes, result[n],
                   columns - n * kLanes);
      }
    }
  }
  for (int64_t i = 0; i < h.keys; ++i) {
    EMM_UNROLL for (int n = 0; n < kDeltaVectors; ++n) {
      store_some(h.state_out + i * h.values + column + n * kLanes,
                 load(state + i * kDeltaColumns + n * kLanes), columns - n * kLanes);
    }
  }
}

}  // namespace
}  // namespace emm::ops
