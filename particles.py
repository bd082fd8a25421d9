from gebm_lightning.cli.particles import main

if __name__ == "__main__":
    main()
