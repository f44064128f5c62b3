# Compiler settings shared by all of our own targets; third-party headers are included as SYSTEM and stay quiet.

option(EMM_WERROR "Treat warnings in our own code as errors (on in CI)" OFF)
set(EMM_SANITIZE "" CACHE STRING "Sanitizers for our own code, for example address,undefined or thread")

function(emm_compile_settings target)
  target_compile_features(${target} PUBLIC cxx_std_17)
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF CXX_VISIBILITY_PRESET hidden
                                             VISIBILITY_INLINES_HIDDEN ON POSITION_INDEPENDENT_CODE ON)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow $<$<BOOL:${EMM_WERROR}>:-Werror>
                                           -ffunction-sections -fdata-sections)
  if(EMM_SANITIZE)
    # The instrumentation makes gcc see uninitialised members of moved variants where there are none.
    target_compile_options(${target} PRIVATE -fsanitize=${EMM_SANITIZE} -fno-omit-frame-pointer
                                             -fno-sanitize-recover=all -Wno-maybe-uninitialized)
    target_link_options(${target} PRIVATE -fsanitize=${EMM_SANITIZE})
  endif()
endfunction()
