// How long idle OpenMP threads keep a core busy.
#pragma once

namespace tadapt {

/// Lets waiting threads spin for some microseconds only, unless $OMP_WAIT_POLICY or $GOMP_SPINCOUNT says otherwise:
/// with more threads than free cores the default (milliseconds) makes runs 10 to 100 times slower. libgomp reads its
/// environment when it is loaded, before main, so the program starts itself again with it set, at most once. To be
/// called before anything else; `words` are main's.
void shorten_openmp_waits(char** words);

}  // namespace tadapt
