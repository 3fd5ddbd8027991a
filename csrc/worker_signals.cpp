// Which SIGTERM a dataloader's worker process obeys. A handler of the process, because a signal may reach any of its
// threads, and which ones there are (of OpenMP, of BLAS) is not ours to know; in C, because only here the sender is told.
// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <csignal>
#include <cstdlib>

namespace {

volatile sig_atomic_t obeyed = 0;

void on_sigterm(int, siginfo_t* info, void*) {
  if (info->si_pid == obeyed) _exit(EXIT_SUCCESS);  // as torch's own workers end
}

}  // namespace

// From now on, a SIGTERM of that process ends this one, any other is ignored. False if the system refuses.
extern "C" bool segfast_obey_sigterm_of(int process) {
  obeyed = process;
  struct sigaction action{};
  action.sa_sigaction = on_sigterm;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  sigemptyset(&action.sa_mask);
  return sigaction(SIGTERM, &action, nullptr) == 0;
}
