# The extension module executorch_mm._core, its stub, and what is installed into the package.

find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module
             OPTIONAL_COMPONENTS Development.SABIModule)
find_package(nanobind CONFIG REQUIRED)

set(_sources bind_build_info.cpp bind_contract.cpp bind_errors.cpp bind_exit.cpp bind_generation.cpp bind_image.cpp bind_inputs.cpp bind_isolation.cpp
             bind_load.cpp bind_methods.cpp bind_program.cpp bind_sampling.cpp bind_session.cpp bind_transducer.cpp gil.cpp module.cpp)
list(TRANSFORM _sources PREPEND "${PROJECT_SOURCE_DIR}/cpp/bindings/")

# Linked mode. STABLE_ABI takes effect from Python 3.12 on, FREE_THREADED on interpreters without the GIL.
nanobind_add_module(_core STABLE_ABI FREE_THREADED NB_DOMAIN executorch_mm NB_SUPPRESS_WARNINGS ${_sources})
emm_compile_settings(_core)
target_link_libraries(_core PRIVATE emm_image emm_remote emm_runtime emm_et)
target_compile_definitions(_core PRIVATE EMM_VERSION="${EMM_VERSION}" EMM_EXECUTORCH_VERSION="${EMM_EXECUTORCH_VERSION}")
if(APPLE)
  set(_rpath "@loader_path")
else()
  set(_rpath "$ORIGIN")
  # Symbols of the static libraries (ours, nanobind's, libstdc++'s where linked statically) stay inside the module.
  target_link_options(_core PRIVATE "LINKER:--exclude-libs,ALL" "LINKER:--enable-new-dtags" "LINKER:--gc-sections")
endif()
set_target_properties(_core PROPERTIES LIBRARY_OUTPUT_DIRECTORY "${EMM_VENDORED_DIR}" BUILD_WITH_INSTALL_RPATH ON
                                       INSTALL_RPATH "${_rpath}")

install(TARGETS _core LIBRARY DESTINATION executorch_mm)
install(PROGRAMS ${EMM_VENDORED_LIBRARIES} DESTINATION executorch_mm)
install(FILES ${EMM_VENDORED_DATA} DESTINATION executorch_mm)

# In the build folder executorch_mm/ holds only the module and its libraries (no __init__.py), so the module is imported
# under its real name and without any dependency of the package. -S keeps an editable installation, which would bring the
# package and the module of the last build, off the path; nanobind_add_stub cannot be told so. Python 3.10 needs the path:
# stubgen imports typing_extensions there.
if(EMM_BUILD_STUB AND NOT CMAKE_CROSSCOMPILING)
  set(_stub "${PROJECT_BINARY_DIR}/stubs/_core.pyi")
  file(MAKE_DIRECTORY "${PROJECT_BINARY_DIR}/stubs")
  set(_isolated -S -E)
  if(Python_VERSION VERSION_LESS 3.11)
    set(_isolated)
  endif()
  add_custom_command(
    OUTPUT "${_stub}"
    COMMAND "${Python_EXECUTABLE}" ${_isolated} "${NB_DIR}/stubgen.py" -q -i "${PROJECT_BINARY_DIR}/package"
            -m executorch_mm._core -o "${_stub}"
    WORKING_DIRECTORY "${PROJECT_BINARY_DIR}"
    DEPENDS _core
    VERBATIM)
  add_custom_target(_core_stub ALL DEPENDS "${_stub}")
else()
  set(_stub "${PROJECT_SOURCE_DIR}/stubs/executorch_mm/_core.pyi")
endif()
install(FILES "${_stub}" DESTINATION executorch_mm)

# The list of what is in the wheel, for its .dist-info (PEP 770).
if(SKBUILD_METADATA_DIR)
  set(_sbom "${PROJECT_BINARY_DIR}/sboms/executorch_mm.cdx.json")
  set(_named_libraries)
  foreach(_component _library IN ZIP_LISTS EMM_SDK_COMPONENTS EMM_VENDORED_LIBRARIES)
    list(APPEND _named_libraries "${_component}=${_library}")
  endforeach()
  execute_process(COMMAND "${Python_EXECUTABLE}" "${PROJECT_SOURCE_DIR}/build_backend/emm_build/sbom.py"
                          --version "${EMM_VERSION}" --output "${_sbom}" --library ${_named_libraries}
                          --known "executorch=${EMM_EXECUTORCH_VERSION}" "nanobind=${nanobind_VERSION}"
                  COMMAND_ERROR_IS_FATAL ANY)
  install(FILES "${_sbom}" DESTINATION "${SKBUILD_METADATA_DIR}/sboms")
endif()
