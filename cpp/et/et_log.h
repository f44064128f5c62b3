// Routes ExecuTorch's log lines to LogQueue and LogCapture instead of stderr.
#pragma once

namespace emm {

// Safe to call often and from any thread; only the first call does something.
void install_log_handler();

}  // namespace emm
