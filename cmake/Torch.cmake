# Finds torch through segfast_torch.py and defines segfast::torch, the stable-ABI interface that the op libraries use.
# find_package(Torch) is avoided: it demands a full CUDA toolkit, edits global flags, and links everything to libtorch_cuda.

execute_process(
  COMMAND ${Python_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/segfast_torch.py
  OUTPUT_VARIABLE segfast_torch_found
  ERROR_VARIABLE segfast_torch_problem
  RESULT_VARIABLE segfast_torch_status)
if(NOT segfast_torch_status EQUAL 0)
  message(FATAL_ERROR "${segfast_torch_problem}")
endif()
list(GET segfast_torch_found 0 SEGFAST_TORCH_DIR)
list(GET segfast_torch_found 1 SEGFAST_TORCH_VERSION)
list(GET segfast_torch_found 2 SEGFAST_TORCH_CUDA)

string(REGEX MATCH "^[0-9]+\\.[0-9]+" segfast_torch_series "${SEGFAST_TORCH_VERSION}")
if(segfast_torch_series VERSION_LESS 2.11)
  message(FATAL_ERROR "segfast needs torch >= 2.11 (stable ABI), found ${SEGFAST_TORCH_VERSION} in ${SEGFAST_TORCH_DIR}")
endif()
message(STATUS "segfast: torch ${SEGFAST_TORCH_VERSION} in ${SEGFAST_TORCH_DIR}")

add_library(segfast_torch INTERFACE)
add_library(segfast::torch ALIAS segfast_torch)
target_include_directories(segfast_torch SYSTEM INTERFACE ${SEGFAST_TORCH_DIR}/include)
# The oldest ABI we promise: one binary then runs on torch 2.11 and everything after it.
target_compile_definitions(segfast_torch INTERFACE TORCH_TARGET_VERSION=0x020b000000000000)
target_compile_features(segfast_torch INTERFACE cxx_std_17)
# Messages and debug strings must not carry the build machine's folders.
target_compile_options(segfast_torch INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-ffile-prefix-map=${PROJECT_SOURCE_DIR}/=>
  $<$<COMPILE_LANGUAGE:CXX>:-ffile-prefix-map=${SEGFAST_TORCH_DIR}/include/=>)
target_link_libraries(segfast_torch INTERFACE ${SEGFAST_TORCH_DIR}/lib/libtorch_cpu${CMAKE_SHARED_LIBRARY_SUFFIX})
