#!/usr/bin/env python3
"""Makes a copy of a toolchain's standard library that ThreadSanitizer sees, and of its runtime.

    std.py SYSROOT TRIPLE COPY

The library comes compiled, and without this ThreadSanitizer sees neither its mutexes nor its ends of
threads: each hand-over through them would be reported as a race. Its objects have their LLVM code in a
section beside the machine code; here the compiler's own LLVM instruments that, as it does the code of a
crate that is built with -Zsanitizer=thread. (Where a toolchain has the component rust-src, -Zbuild-std does
the same from the source.) What the runtime is told of an Arc's count: see count_down.c.
"""

import ctypes
import glob
import os
import shutil
import subprocess
import sys
import tempfile

# The rest of the library is not on the way of any hand-over: unwinding, symbols, intrinsics.
CRATES = ["alloc", "core", "hashbrown", "std", "std_detect", "test"]

OF_THE_FUNCTION = 0xFFFFFFFF
DEFAULT_OPTIMIZATION, POSITION_INDEPENDENT, DEFAULT_MODEL, AN_OBJECT = 2, 2, 0, 1

Pointer = ctypes.c_void_p
Text = ctypes.c_char_p


class Llvm:
    """LLVM's C interface, of the library that the compiler itself uses."""

    def __init__(self, sysroot):
        self.library = ctypes.CDLL(glob.glob(f"{sysroot}/lib/libLLVM.so.*")[0])

    def __getattr__(self, name):
        def call(*arguments, returns=Pointer):
            function = getattr(self.library, "LLVM" + name)
            function.restype = returns
            return function(*arguments)

        return call

    def ready(self, triple):
        family = {"x86_64": "X86", "aarch64": "AArch64"}[triple.split("-")[0]]
        for part in ["TargetInfo", "Target", "TargetMC", "AsmPrinter", "AsmParser"]:
            getattr(self, f"Initialize{family}{part}")(returns=None)

    def instrument(self, bitcode, path):
        """Writes the machine code of an instrumented module to `path`."""
        module, target, fault = Pointer(), Pointer(), Text()
        buffer = Pointer(self.CreateMemoryBufferWithMemoryRangeCopy(
            bitcode, ctypes.c_size_t(len(bitcode)), b"std"))
        context = Pointer(self.ContextCreate())
        if self.ParseBitcodeInContext2(
                context, buffer, ctypes.byref(module), returns=ctypes.c_int):
            sys.exit(f"{path}: LLVM does not read the module")

        kind = self.GetEnumAttributeKindForName(
            b"sanitize_thread", ctypes.c_size_t(len(b"sanitize_thread")), returns=ctypes.c_uint)
        asked = Pointer(self.CreateEnumAttribute(context, kind, ctypes.c_uint64(0)))
        function = self.GetFirstFunction(module)
        while function:
            if not self.IsDeclaration(Pointer(function), returns=ctypes.c_int):
                self.AddAttributeAtIndex(
                    Pointer(function), ctypes.c_uint(OF_THE_FUNCTION), asked, returns=None)
            function = self.GetNextFunction(Pointer(function))

        triple = self.GetTarget(module, returns=Text)
        if self.GetTargetFromTriple(
                triple, ctypes.byref(target), ctypes.byref(fault), returns=ctypes.c_int):
            sys.exit(f"{path}: {fault.value.decode()}")
        processor = b"x86-64" if triple.startswith(b"x86_64") else b"generic"
        machine = Pointer(self.CreateTargetMachine(
            target, triple, processor, b"",
            DEFAULT_OPTIMIZATION, POSITION_INDEPENDENT, DEFAULT_MODEL))
        options = Pointer(self.CreatePassBuilderOptions())
        failed = self.RunPasses(module, b"tsan-module,function(tsan)", machine, options)
        if failed:
            sys.exit(f"{path}: {self.GetErrorMessage(Pointer(failed), returns=Text).decode()}")
        if self.TargetMachineEmitToFile(
                machine, module, path.encode(), AN_OBJECT, ctypes.byref(fault),
                returns=ctypes.c_int):
            sys.exit(f"{path}: {fault.value.decode()}")


def bitcode_of(path):
    with tempfile.NamedTemporaryFile() as section:
        subprocess.run(
            ["objcopy", "-O", "binary", "--only-section=.llvmbc",
             "--set-section-flags", ".llvmbc=alloc", path, section.name], check=True)
        return open(section.name, "rb").read()


def copy_instrumented(llvm, archive, copy):
    shutil.copy(archive, copy)
    with tempfile.TemporaryDirectory() as members:
        subprocess.run(["ar", "x", archive], cwd=members, check=True)
        for name in sorted(os.listdir(members)):
            if name.endswith(".o"):
                path = f"{members}/{name}"
                bitcode = bitcode_of(path)
                if not bitcode:
                    sys.exit(f"{archive}: {name} has no LLVM code in it")
                llvm.instrument(bitcode, path)
                subprocess.run(["ar", "r", copy, name], cwd=members, check=True)


def copy_runtime(archive, copy):
    renamed = "__tsan_atomic64_fetch_sub=tierlock_tsan_fetch_sub"
    subprocess.run(["objcopy", "--redefine-sym", renamed, archive, copy], check=True)
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "count_down.c")
    with tempfile.TemporaryDirectory() as built:
        subprocess.run(
            ["cc", "-O2", "-fPIC", "-c", source, "-o", "count_down.o"], cwd=built, check=True)
        subprocess.run(["ar", "r", copy, "count_down.o"], cwd=built, check=True)


def main():
    sysroot, triple, copy = sys.argv[1:]
    libraries = f"lib/rustlib/{triple}/lib"
    llvm = Llvm(sysroot)
    llvm.ready(triple)
    shutil.rmtree(copy, ignore_errors=True)
    os.makedirs(f"{copy}/{libraries}")
    for name in os.listdir(f"{sysroot}/{libraries}"):
        original, new = f"{sysroot}/{libraries}/{name}", f"{copy}/{libraries}/{name}"
        crate = name.removeprefix("lib").partition("-")[0]
        if name.endswith(".rlib") and crate in CRATES:
            copy_instrumented(llvm, original, new)
        elif name.endswith("_rt.tsan.a"):
            copy_runtime(original, new)
        elif not name.endswith(".so"):
            os.symlink(original, new)


main()
