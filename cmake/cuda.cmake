# The CUDA backend: none, compiled by nvcc, or its device code run on the CPU (for tests; see tests/device_on_host).
set(TADAPT_CUDA OFF CACHE STRING "CUDA backend: OFF, ON (nvcc) or HOST (device code on the CPU, for tests)")
set_property(CACHE TADAPT_CUDA PROPERTY STRINGS OFF ON HOST)

if(TADAPT_CUDA STREQUAL "HOST")
  find_package(Boost REQUIRED COMPONENTS context)
  file(GLOB device_on_host_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/device_on_host/*.cc)
  list(FILTER device_on_host_sources EXCLUDE REGEX "/nccl_on_host\\.cc$")
  add_library(device_on_host STATIC ${device_on_host_sources})
  target_include_directories(device_on_host PUBLIC ${CMAKE_SOURCE_DIR}/tests/device_on_host)
  target_link_libraries(device_on_host PUBLIC tadapt_options Boost::context)
  # Apart, since it speaks MPI, which only communicators may.
  add_library(nccl_on_host STATIC ${CMAKE_SOURCE_DIR}/tests/device_on_host/nccl_on_host.cc)
  target_compile_definitions(nccl_on_host PRIVATE OMPI_SKIP_MPICXX MPICH_SKIP_MPICXX)
  target_link_libraries(nccl_on_host PUBLIC device_on_host PRIVATE MPI::MPI_C)
  target_link_libraries(tadapt_dependencies_comm INTERFACE nccl_on_host)
elseif(TADAPT_CUDA)
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 90)
  endif()
  enable_language(CUDA)
  # CMake 3.25 does not know that nvcc has C++20.
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
  find_package(CUDAToolkit REQUIRED)
  find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  find_library(NCCL_LIBRARY NAMES nccl libnccl.so.2 HINTS ${CUDAToolkit_LIBRARY_DIR})
  if(NOT NCCL_INCLUDE_DIR OR NOT NCCL_LIBRARY)
    message(FATAL_ERROR "NCCL was not found: looked for nccl.h beside CUDA's headers (${CUDAToolkit_INCLUDE_DIRS}) and "
      "for libnccl.so.2 in ${CUDAToolkit_LIBRARY_DIR}, and where the system keeps its own. Install it (on Debian: "
      "libnccl-dev), name it by -DNCCL_INCLUDE_DIR=<folder> -DNCCL_LIBRARY=<file>, or set CUDAToolkit_ROOT to what "
      "tools/install-cuda prints.")
  endif()
  target_include_directories(tadapt_dependencies_comm SYSTEM INTERFACE ${NCCL_INCLUDE_DIR})
  target_link_libraries(tadapt_dependencies_comm INTERFACE ${NCCL_LIBRARY})
endif()

# tadapt_knows_devices(TARGET): its code asks (#if defined(TADAPT_CUDA)) for what this build was made. Few do, so that the
# compiler cache gives a build with CUDA most of what one without it made.
function(tadapt_knows_devices target)
  if(TADAPT_CUDA)
    target_compile_definitions(${target} PRIVATE TADAPT_CUDA)
  endif()
endfunction()

# tadapt_add_device_code(TARGET DIRS <folders>): the *_cuda.cu of those folders, as this build has CUDA.
function(tadapt_add_device_code target)
  cmake_parse_arguments(ARG "" "" "DIRS" ${ARGN})
  if(NOT TADAPT_CUDA)
    return()
  endif()
  set(device_sources)
  foreach(dir IN LISTS ARG_DIRS)
    file(GLOB found CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${dir}/*_cuda.cu)
    list(APPEND device_sources ${found})
  endforeach()
  if(NOT device_sources)
    return()
  endif()
  target_sources(${target} PRIVATE ${device_sources})
  if(TADAPT_CUDA STREQUAL "HOST")
    set_source_files_properties(${device_sources} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-x;c++")
    target_link_libraries(${target} PUBLIC device_on_host)
  else()
    # No contraction: elementwise ops give the CPU's bits. fmt 9 needs to be told that nvcc knows constexpr.
    set_source_files_properties(${device_sources} PROPERTIES COMPILE_OPTIONS
      "--expt-relaxed-constexpr;-fmad=false;-Werror;all-warnings;-diag-suppress=20208;-DFMT_USE_CONSTEXPR=1;-Xptxas=-v")
    target_link_libraries(${target} PUBLIC CUDA::cudart CUDA::cublasLt)
  endif()
endfunction()
