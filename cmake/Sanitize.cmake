# segfast::sanitizers: what -DSEGFAST_SANITIZE=address,undefined adds to our own targets on the CPU. For tests, never for use:
# such a library loads only into a process that has the sanitizers' runtime; .ci/sanitized shows how.

set(SEGFAST_SANITIZE "" CACHE STRING "Sanitizers for the CPU libraries, as -fsanitize= takes them; empty: none")
add_library(segfast_sanitizers INTERFACE)
add_library(segfast::sanitizers ALIAS segfast_sanitizers)
if(NOT "${SEGFAST_SANITIZE}" STREQUAL "")
  # -O1 comes after each target's own -O3. A finding ends the process: a test that only prints passes.
  target_compile_options(segfast_sanitizers INTERFACE
    -fsanitize=${SEGFAST_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g1 -O1)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND "${SEGFAST_SANITIZE}" MATCHES "address")
    # Checks as calls: written out, they make the vector kernels take ten times as long to compile.
    target_compile_options(segfast_sanitizers INTERFACE --param=asan-instrumentation-with-call-threshold=0)
  endif()
  target_link_options(segfast_sanitizers INTERFACE -fsanitize=${SEGFAST_SANITIZE})
endif()
