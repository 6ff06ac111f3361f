//! Compiles `kernels/`: for a GPU where the feature `cuda` is on, for the CPU, on which tests run them, where
//! `kernels-on-cpu` is. Does nothing else.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(any(feature = "cuda", feature = "kernels-on-cpu"))]
    println!("cargo:rerun-if-changed=kernels");
    #[cfg(feature = "cuda")]
    cuda::compile();
    #[cfg(feature = "kernels-on-cpu")]
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .define("CUDA_ON_CPU", None)
        // Products are rounded before they are added, as the kernels ask for.
        .flag_if_supported("-ffp-contract=off")
        // What the stand-in for CUDA has no use for.
        .flag_if_supported("-Wno-unknown-pragmas")
        .files(["attention", "edit", "dla", "norm", "cpu/planted"].map(|name| format!("kernels/{name}.cu")))
        // By its ending a file would be taken for CUDA.
        .flag("-xc++")
        .compile("gatelens_kernels_on_cpu");
}

#[cfg(feature = "cuda")]
mod cuda {
    use std::path::{Path, PathBuf};
    use std::process::Command;

    /// Compiles each file of kernels to PTX, which runs on GPUs of one compute capability and later ones: that of
    /// `CUDA_COMPUTE_CAP`, else of this machine's oldest GPU, as candle's kernels are compiled for, else 8.0.
    pub fn compile() {
        for name in ["CUDA_HOME", "CUDA_COMPUTE_CAP", "NVCC"] {
            println!("cargo:rerun-if-env-changed={name}");
        }
        let capability = std::env::var("CUDA_COMPUTE_CAP").ok().or_else(of_this_machine).unwrap_or("80".to_string());
        println!("cargo:rustc-env=GATELENS_COMPUTE_CAP={capability}");
        let out = PathBuf::from(std::env::var("OUT_DIR").unwrap_or_default());
        for name in ["attention", "edit", "dla", "norm"] {
            let done = Command::new(nvcc())
                .args(["--ptx", "--std=c++17", "-O3", &format!("-arch=compute_{capability}"), "-o"])
                .arg(out.join(name).with_extension("ptx"))
                .arg(Path::new("kernels").join(name).with_extension("cu"))
                .status();
            match done {
                Ok(status) if status.success() => {}
                Ok(status) => fail(&format!("nvcc left kernels/{name}.cu with {status}")),
                Err(e) => fail(&format!(
                    "nvcc could not be started ({e}); set CUDA_HOME to where CUDA is, or build without --features cuda"
                )),
            }
        }
    }

    /// The least compute capability of the GPUs here, 86 for 8.6; none where there is no driver to ask.
    fn of_this_machine() -> Option<String> {
        let asked =
            Command::new("nvidia-smi").args(["--query-gpu=compute_cap", "--format=csv,noheader"]).output().ok()?;
        let text = String::from_utf8(asked.stdout).ok()?;
        let each = text.lines().filter_map(|line| line.trim().replace('.', "").parse::<u32>().ok());
        each.min().map(|capability| capability.to_string())
    }

    fn nvcc() -> PathBuf {
        let given = std::env::var_os("NVCC").map(PathBuf::from);
        let home = std::env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("bin/nvcc"));
        given.or(home).unwrap_or_else(|| PathBuf::from("nvcc"))
    }

    fn fail(why: &str) -> ! {
        println!("cargo:error={why}");
        std::process::exit(1)
    }
}
