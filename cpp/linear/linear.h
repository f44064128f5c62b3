// Linear layers that share their inputs, run on few rows (a decode step) or many (a prompt).
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "linear/kernels.h"
#include "linear/layer.h"

namespace emm::linear {

// Calls body(task, worker) for each task in [0, tasks); `worker` is in [0, most_workers). `work` is
// the number of multiplications in all.
struct TaskRunner {
  int64_t most_workers = 1;
  std::function<void(int64_t tasks, int64_t work,
                     const std::function<void(int64_t task, int64_t worker)>& body)>
      run;
};

// All tasks on the calling thread.
TaskRunner serial_runner();

struct Part {
  Layer layer;
  size_t input = 0;  // which of the inputs of run()
};

// Not to be run by two threads at a time.
class LinearParts {
 public:
  LinearParts(std::vector<Part> parts, const Kernels& kernels);

  const std::vector<Part>& parts() const { return parts_; }
  const Kernels& kernels() const { return *kernels_; }

  // inputs[i] is a matrix of rows[i] rows; outputs[p] gets the rows of part p. Returns false where
  // there is no memory for it.
  bool run(const std::vector<const float*>& inputs, const std::vector<int64_t>& rows,
           const std::vector<float*>& outputs, const TaskRunner& runner);

 private:
  std::vector<Part> parts_;
  const Kernels* kernels_;
  // Of the weights of each output: what the zero point of an input is multiplied by. Found by the
  // first run, because loading does not read weights.
  std::vector<std::vector<float>> sums_;
  bool has_sums_ = false;
};

}  // namespace emm::linear
