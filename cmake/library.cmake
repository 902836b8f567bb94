# tadapt_library(NAME DIRS <folders> DEPS <targets>): one static library of all *.cc in those folders (main.cc left out).
function(tadapt_library name)
  cmake_parse_arguments(ARG "" "" "DIRS;DEPS" ${ARGN})
  set(sources)
  foreach(dir IN LISTS ARG_DIRS)
    file(GLOB found CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${dir}/*.cc)
    list(APPEND sources ${found})
  endforeach()
  list(FILTER sources EXCLUDE REGEX "launcher/main\\.cc$")
  if(sources)
    add_library(tadapt_${name} STATIC ${sources})
    target_link_libraries(tadapt_${name} PUBLIC tadapt_options ${ARG_DEPS})
    tadapt_add_device_code(tadapt_${name} DIRS ${ARG_DIRS})
  else()
    add_library(tadapt_${name} INTERFACE)
    target_link_libraries(tadapt_${name} INTERFACE tadapt_options ${ARG_DEPS})
  endif()
endfunction()

# Tests run beside each other: with its default, waiting OpenMP threads would hold cores for milliseconds.
set(TADAPT_SHORT_WAITS GOMP_SPINCOUNT=1000)

# Most instrumented tests take longer to compile than to run, so they are not optimised; what they test is.
add_library(tadapt_test_options INTERFACE)
target_compile_options(tadapt_test_options INTERFACE $<$<BOOL:${TADAPT_SANITIZE}>:-O0>)

# tadapt_test(FOLDER LIBS <targets> [RELIABILITY <GoogleTest filter>] [COMPUTES]): one GoogleTest binary of
# tests/FOLDER/*_test.cc, each case a ctest case; those of the filter have the label "reliability". COMPUTES: the tests
# themselves do much arithmetic, and are always optimised.
function(tadapt_test folder)
  cmake_parse_arguments(ARG "COMPUTES" "TIMEOUT;RELIABILITY" "LIBS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/${folder}/*.cc)
  if(NOT sources)
    return()
  endif()
  string(REPLACE "/" "_" target test_${folder})
  add_executable(${target} ${sources})
  target_link_libraries(${target} PRIVATE ${ARG_LIBS} GTest::gmock GTest::gtest_main)
  if(NOT ARG_COMPUTES)
    target_link_libraries(${target} PRIVATE tadapt_test_options)
  endif()
  target_compile_definitions(${target} PRIVATE TADAPT_SOURCE_DIR="${CMAKE_SOURCE_DIR}"
                                               TADAPT_BINARY_DIR="${CMAKE_BINARY_DIR}")
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  # No empty property: the script that discovers tests would take the next name for its value.
  set(properties TIMEOUT ${ARG_TIMEOUT} ENVIRONMENT "${TADAPT_SHORT_WAITS}")
  if(ARG_RELIABILITY)
    gtest_discover_tests(${target} DISCOVERY_MODE PRE_TEST TEST_PREFIX "${folder}/" TEST_FILTER "${ARG_RELIABILITY}"
                         TEST_LIST ${target}_reliability PROPERTIES ${properties} LABELS reliability)
    set(filter TEST_FILTER "-${ARG_RELIABILITY}")
  endif()
  gtest_discover_tests(${target} DISCOVERY_MODE PRE_TEST TEST_PREFIX "${folder}/" ${filter} PROPERTIES ${properties})
endfunction()

# tadapt_test_program(TARGET SOURCE LIBS <targets>): a program that tests start, in the folder of the test binaries.
function(tadapt_test_program target source)
  cmake_parse_arguments(ARG "" "" "LIBS" ${ARGN})
  add_executable(${target} ${source})
  target_link_libraries(${target} PRIVATE ${ARG_LIBS})
endfunction()

# tadapt_mpi_test(NAME TARGET RANKS <counts> [ARGS …] [TIMEOUT s] [LABELS …]): ctest cases NAME_<n> that run TARGET with
# mpirun, also as root and with more ranks than cores.
function(tadapt_mpi_test name target)
  cmake_parse_arguments(ARG "" "TIMEOUT" "RANKS;ARGS;LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  foreach(ranks IN LISTS ARG_RANKS)
    add_test(NAME ${name}_${ranks} COMMAND ${MPIEXEC_EXECUTABLE} ${MPIEXEC_NUMPROC_FLAG} ${ranks}
                                           $<TARGET_FILE:${target}> ${ARG_ARGS})
    set_tests_properties(${name}_${ranks} PROPERTIES
      PROCESSORS ${ranks} TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}"
      ENVIRONMENT "${TADAPT_SHORT_WAITS};OMPI_ALLOW_RUN_AS_ROOT=1;OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1;OMPI_MCA_rmaps_base_oversubscribe=1;ASAN_OPTIONS=detect_leaks=0")
  endforeach()
endfunction()
