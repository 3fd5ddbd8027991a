# segfast::warnings: strict for our files. Warnings are errors only when SEGFAST_WERROR is on (CI), never at a user's pip install.

option(SEGFAST_WERROR "Treat compiler warnings as errors" OFF)
add_library(segfast_warnings INTERFACE)
add_library(segfast::warnings ALIAS segfast_warnings)
# -Wno-psabi: wide vectors never cross a library boundary here, so gcc's note about their calling convention is noise.
target_compile_options(segfast_warnings INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wno-psabi>)
if(SEGFAST_WERROR)
  target_compile_options(segfast_warnings INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-Werror>
    $<$<COMPILE_LANGUAGE:CUDA>:--Werror=all-warnings>)
endif()
