# The machine's image: `make ami` builds it on Amazon Linux 2023, `make image` on a Debian disk in QEMU. What happens on the
# machine is the same, packages apart: provision/provision.sh.
#
# Debian's Packer 1.6.6 builds the Debian disk, but does not know some lines that Amazon's needs. They stand between
# "modern" and "end modern"; template.sh leaves them out for an old Packer, together with plugins.pkr.hcl.

variable "payload" {
  type        = string
  description = "The archive that payload.sh made."
}

variable "version" {
  type        = string
  description = "The agent's version."
}

variable "commit" {
  type        = string
  description = "The commit that the agent was built from."
}

variable "built" {
  type        = string
  description = "When: 20261122T064205Z."
}

variable "region" {
  type        = string
  default     = "ap-northeast-3"
  description = "Where the Amazon image is built and kept."
}

variable "arch" {
  type        = string
  default     = "x86_64"
  description = "x86_64 or arm64."
}

variable "kernel" {
  type        = string
  default     = "6.1"
  description = "Of Amazon Linux 2023, which comes with several: 6.1 has all that docker's firewall and the fence need."
}

variable "minutes" {
  type        = number
  default     = 90
  description = "After which the machine that builds ends itself, whatever became of Packer. A build takes some ten."
}

variable "subnet" {
  type        = string
  default     = ""
  description = "A public subnet to build in; by default one of the default VPC's."
}

variable "profile" {
  type        = string
  default     = ""
  description = "An instance profile for the machine that builds: with it, a private release can be baked in."
}

variable "encrypt" {
  type        = bool
  default     = true
  description = "Encrypt the image with the account's own EBS key. An encrypted image cannot be given to other accounts."
}

variable "endpoint" {
  type        = string
  default     = ""
  description = "Of another EC2 than Amazon's, such as that of the tests; empty for Amazon's."
}

variable "ssh_host" {
  type        = string
  default     = ""
  description = "Where the machine that builds answers; by default at the address that EC2 gives it."
}

variable "ssh_port" {
  type    = number
  default = 22
}

variable "ssh_timeout" {
  type        = string
  default     = "5m"
  description = "From the launch until the machine that builds answers."
}

variable "manifest" {
  type        = string
  default     = "ami-manifest.json"
  description = "Where Packer writes which image it made."
}

variable "disk" {
  type        = string
  default     = ""
  description = "Folder that disk/assemble.sh made: disk.qcow2, vmlinuz, initrd, key."
}

variable "output" {
  type        = string
  default     = "output"
  description = "Folder for the qcow2 image; it must not exist."
}

variable "accelerator" {
  type        = string
  default     = "tcg"
  description = "kvm is many times faster where it works; tcg works everywhere."
}

variable "netdev" {
  type        = string
  default     = ""
  description = "More options of QEMU's user network, such as ',guestfwd=...'."
}

locals {
  # The smallest that installs without swapping; a build takes minutes.
  instance = { x86_64 = "t3.medium", arm64 = "t4g.medium" }

  tags = {
    Name             = "mayfly-${var.version}-${var.arch}"
    "mayfly:version" = var.version
    "mayfly:commit"  = var.commit
    "mayfly:built"   = var.built
  }
}

source "amazon-ebs" "mayfly" {
  region        = var.region
  instance_type = local.instance[var.arch]
  subnet_id     = var.subnet

  iam_instance_profile    = var.profile
  skip_profile_validation = true # it would take one more right
  custom_endpoint_ec2     = var.endpoint
  skip_region_validation  = var.endpoint != ""
  skip_metadata_api_check = var.endpoint != ""

  ami_name                = "mayfly-${var.version}-${var.arch}-${var.built}"
  ami_description         = "Mayfly ${var.version} (${var.commit}) on Amazon Linux 2023, ${var.arch}"
  ami_virtualization_type = "hvm"
  ena_support             = true
  encrypt_boot            = var.encrypt

  source_ami_filter {
    owners      = ["amazon"]
    most_recent = true
    filters = {
      # Not the minimal image, which has no SSM agent.
      name                = "al2023-ami-2023.*-kernel-${var.kernel}-${var.arch}"
      root-device-type    = "ebs"
      virtualization-type = "hvm"
    }
  }

  launch_block_device_mappings {
    device_name           = "/dev/xvda"
    volume_type           = "gp3"
    volume_size           = 16
    iops                  = 3000 # with the throughput, what gp3 gives without an extra charge
    throughput            = 125
    delete_on_termination = true
  }

  communicator                = "ssh"
  ssh_username                = "ec2-user"
  ssh_host                    = var.ssh_host
  ssh_port                    = var.ssh_port
  ssh_timeout                 = var.ssh_timeout
  associate_public_ip_address = true
  # Should Packer die, the machine that builds switches itself off, and what is off is gone. Packer itself stops it by EC2's
  # own call, which ends nothing. User data is no part of the image.
  user_data         = "#!/bin/sh\n/usr/sbin/shutdown -h +${var.minutes}\n"
  shutdown_behavior = "terminate"

  tags            = local.tags
  snapshot_tags   = local.tags
  run_tags        = local.tags
  run_volume_tags = local.tags

  # modern
  temporary_key_pair_type                   = "ed25519"
  temporary_security_group_source_public_ip = true
  # The metadata service answers nobody without a token: while building, and on every machine that is started from it.
  imds_support = "v2.0"
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }
  # end modern
}

source "qemu" "mayfly" {
  iso_url          = "${var.disk}/disk.qcow2"
  iso_checksum     = "none"
  disk_image       = true
  format           = "qcow2"
  disk_interface   = "virtio"
  skip_resize_disk = true
  skip_compaction  = true

  output_directory = var.output
  vm_name          = "disk.qcow2"
  accelerator      = var.accelerator
  machine_type     = "q35"
  headless         = true
  boot_wait        = "1s"
  disk_cache       = "unsafe"

  # The kernel is booted directly: the disk has no boot loader, and needs none anywhere.
  qemuargs = [
    ["-cpu", "max"],
    ["-m", "3072"],
    ["-smp", "2"],
    ["-kernel", "${var.disk}/vmlinuz"],
    ["-initrd", "${var.disk}/initrd"],
    ["-append", "root=/dev/vda rw console=ttyS0"],
    ["-serial", "file:${var.disk}/build-console.log"],
    ["-netdev", "user,id=user.0,hostfwd=tcp:127.0.0.1:{{ .SSHHostPort }}-:22${var.netdev}"],
  ]

  communicator         = "ssh"
  ssh_username         = "root"
  ssh_private_key_file = "${var.disk}/key"
  ssh_timeout          = "10m"
  shutdown_command     = "systemctl poweroff"
  shutdown_timeout     = "5m"
}

build {
  sources = ["source.amazon-ebs.mayfly", "source.qemu.mayfly"]

  provisioner "file" {
    source      = var.payload
    destination = "/tmp/mayfly.tar"
  }

  provisioner "shell" {
    only = ["amazon-ebs.mayfly"]
    inline = [
      "sudo cloud-init status --wait >/dev/null || true",
      "test -e /run/systemd/shutdown/scheduled || { echo 'this machine would not end itself' >&2; exit 1; }",
      "sudo tar -xf /tmp/mayfly.tar -C /var/tmp",
      "sudo MAYFLY_PROFILE='${var.profile}' bash /var/tmp/mayfly/provision.sh amazon",
    ]
  }

  provisioner "shell" {
    only = ["qemu.mayfly"]
    inline = [
      "tar -xf /tmp/mayfly.tar -C /var/tmp",
      "bash /var/tmp/mayfly/provision.sh debian",
    ]
  }

  post-processor "manifest" {
    only       = ["amazon-ebs.mayfly"]
    output     = var.manifest
    strip_path = true
    custom_data = {
      version = var.version
      commit  = var.commit
      built   = var.built
      arch    = var.arch
    }
  }
}
