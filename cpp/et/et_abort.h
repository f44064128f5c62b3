// What happens when ExecuTorch gives up (a failed ET_CHECK).
#pragma once

namespace emm {

// Called in place of abort(). Throws Error(kExecution) with the lines of the thread's LogCapture
// where the calls in between can be left that way, and ends the process otherwise: outside of a
// capture, and in the thread pool, whose lock would stay taken.
void leave_executorch();

}  // namespace emm
