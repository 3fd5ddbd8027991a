// segfast._C: what was built and what was chosen, and what Python cannot do itself. It links libsegfast_ops, so importing
// it registers the CPU operators; it never carries a tensor.
// SPDX-License-Identifier: Apache-2.0
#include <pybind11/pybind11.h>

namespace py = pybind11;

extern "C" const char* segfast_cpu_capability();
extern "C" bool segfast_obey_sigterm_of(int process);  // worker_signals.cpp

namespace {

const char* compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#else
  return "gcc " __VERSION__;
#endif
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Build facts of segfast; importing it registers torch.ops.segfast.";
  m.def("build_facts", [] {
    py::dict facts;
    facts["version"] = SEGFAST_VERSION;
    facts["torch"] = SEGFAST_TORCH_VERSION;
    facts["cuda"] = SEGFAST_CUDA_VERSION;
    facts["cuda_archs"] = SEGFAST_CUDA_ARCHS;
    facts["cuda_reason"] = SEGFAST_CUDA_REASON;
    facts["cpu_capability"] = segfast_cpu_capability();
    facts["compiler"] = compiler();
    return facts;
  });
  m.def("obey_sigterm_of", &segfast_obey_sigterm_of);
}
