# Everything from outside, as one interface target per layer, so that only the folders allowed to use a library see it.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()

find_package(Threads REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS CXX)
# Debian's dnnl-config.cmake insists on OpenCL headers that its CPU library does not need.
find_library(DNNL_LIBRARY dnnl REQUIRED)
find_path(DNNL_INCLUDE_DIR oneapi/dnnl/dnnl.hpp REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(MPI REQUIRED COMPONENTS C)
find_package(HDF5 REQUIRED COMPONENTS C)
find_package(yaml-cpp REQUIRED)
find_package(Boost REQUIRED COMPONENTS program_options)
find_package(PkgConfig REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
pkg_check_modules(ISAL REQUIRED IMPORTED_TARGET libisal)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(CURL REQUIRED IMPORTED_TARGET libcurl)
pkg_check_modules(HTTPLIB REQUIRED IMPORTED_TARGET cpp-httplib)
find_package(GTest REQUIRED)
include(GoogleTest)

add_library(tadapt_options INTERFACE)
target_include_directories(tadapt_options INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_definitions(tadapt_options INTERFACE TADAPT_VERSION="${PROJECT_VERSION}")
target_compile_options(tadapt_options INTERFACE
  $<$<COMPILE_LANGUAGE:C,CXX>:-Wall;-Wextra;-Wpedantic;-Wshadow;-Werror;-fno-omit-frame-pointer>)
# No contraction, no reassociation: a row's result must not depend on which loop a compiler vectorised.
target_compile_options(tadapt_options INTERFACE $<$<COMPILE_LANGUAGE:C,CXX>:-ffp-contract=off>)
option(TADAPT_SANITIZE "build with AddressSanitizer and UndefinedBehaviorSanitizer" OFF)
if(TADAPT_SANITIZE)
  # Light optimisation, for the time it takes; and no warnings as errors, since instrumentation makes gcc 12 see
  # uninitialised values that are none. The Release build refuses every warning.
  target_compile_options(tadapt_options INTERFACE -fsanitize=address,undefined -fno-sanitize-recover=undefined -O1 -g1
                                                  -Wno-error)
  target_link_options(tadapt_options INTERFACE -fsanitize=address,undefined)
endif()

if(TADAPT_FUZZ)
  target_compile_options(tadapt_options INTERFACE -fsanitize=fuzzer-no-link)
endif()

add_library(tadapt_dependencies_kernels INTERFACE)
target_link_libraries(tadapt_dependencies_kernels INTERFACE OpenMP::OpenMP_CXX ${DNNL_LIBRARY} fmt::fmt Threads::Threads)
add_library(tadapt_dependencies_data INTERFACE)
target_include_directories(tadapt_dependencies_data SYSTEM INTERFACE ${HDF5_C_INCLUDE_DIRS})
target_link_libraries(tadapt_dependencies_data INTERFACE ${HDF5_C_LIBRARIES} nlohmann_json::nlohmann_json
                      PkgConfig::PCRE2 PkgConfig::UTF8PROC PkgConfig::ISAL PkgConfig::XXHASH)
add_library(tadapt_dependencies_comm INTERFACE)
# The removed C++ bindings of MPI would want another library.
target_compile_definitions(tadapt_dependencies_comm INTERFACE OMPI_SKIP_MPICXX MPICH_SKIP_MPICXX)
target_link_libraries(tadapt_dependencies_comm INTERFACE MPI::MPI_C spdlog::spdlog)
add_library(tadapt_dependencies_analysis INTERFACE)
target_link_libraries(tadapt_dependencies_analysis INTERFACE PkgConfig::CURL)
add_library(tadapt_dependencies_launcher INTERFACE)
target_link_libraries(tadapt_dependencies_launcher INTERFACE yaml-cpp Boost::program_options spdlog::spdlog
                      PkgConfig::HTTPLIB)
